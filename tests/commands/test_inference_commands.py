"""`koser predict` and `koser export` as a new user calls them."""

import csv
import io
import json
import os
import shutil
import threading

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from fixtures.recognizers import LABELS, mfcc_checkpoint, speech
from koser.inference import export as export_module
from koser.inference.recognizer import load_recognizer
from koser.reporting import canvas

RATE = 16_000


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A checkpoint, two recordings and something that is none."""
    folder = tmp_path_factory.mktemp("originals")
    mfcc_checkpoint().write(folder / "best_model_mfcc.pth")
    for name, seed in (("one", 1), ("둘", 2)):
        soundfile.write(folder / f"{name}.wav", speech(12, seed=seed), RATE, "PCM_16")
    (folder / "bad.wav").write_bytes(b"not audio")
    return folder


@pytest.fixture
def files(originals, tmp_path, monkeypatch):
    """The same in the folder of the command."""
    monkeypatch.setattr(export_module, "PROBE_SECONDS", (0.02, 2.0))
    return shutil.copytree(originals, tmp_path, dirs_exist_ok=True)


def test_a_device_or_a_pipe_is_written_like_a_file_and_is_no_folder_of_shards(koser, files):
    (files / "sound" / "angry").mkdir(parents=True)
    (files / "one.wav").rename(files / "sound" / "angry" / "one.wav")
    assert koser("prepare", "folder", "sound", "--out", "m.parquet")[0] == 0
    command = ["predict", ".", "--manifest", "m.parquet", "--format", "csv", "--out"]
    assert koser(*command, "/dev/null") == (0, "", "")
    assert koser(*command, "table.csv")[0] == 0
    os.mkfifo(files / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((files / "pipe").read_bytes()), daemon=True)
    reader.start()
    assert koser(*command, "pipe") == (0, "", "")
    reader.join(timeout=30)
    assert got == [(files / "table.csv").read_bytes()]


def test_an_exported_model_says_what_the_run_says(koser, files):
    status, out, err = koser("export", ".", "--out", "model.onnx")
    assert (status, err) == (0, "")
    assert "model.onnx" in out
    assert "differ by at most" in out
    found = {}
    for model in (".", "model.onnx"):
        status, out, _ = koser("predict", model, "one.wav", "둘.wav", "--format", "json")
        assert status == 0
        found[model] = [each["probabilities"] for each in json.loads(out)]
    for one, other in zip(found["."], found["model.onnx"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_8_bit_weights_say_what_they_cost(koser, files):
    status, out, _ = koser("export", ".", "--out", "small.onnx", "--int8")
    assert status == 0
    assert "What 8-bit weights cost in accuracy depends on the data" in out
    assert koser("predict", "small.onnx", "one.wav")[0] == 0


def test_threshold_and_labels_reach_every_format(koser, files):
    options = ["--threshold", "0.99", "--labels", "calm, angry"]
    _, out, _ = koser("predict", ".", "one.wav", *options)
    assert out.splitlines()[1].startswith("unsure")
    assert "neutral" not in out
    _, out, _ = koser("predict", ".", "one.wav", *options, "--format", "json")
    (found,) = json.loads(out)
    assert (found["label"], found["threshold"]) == (None, 0.99)
    assert list(found["probabilities"]) == ["angry", "calm"]
    assert 0 < found["share"] < 1
    _, out, _ = koser("predict", ".", "one.wav", *options, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["label"] == ""
    assert float(row["confidence"]) == pytest.approx(found["confidence"])


def test_a_parquet_file_holds_every_file_and_failure(koser, files):
    status, out, err = koser(
        "predict", ".", "one.wav", "bad.wav", "--format", "parquet", "--out", "p.parquet"
    )
    assert (status, out) == (1, "")
    assert "1 of 2 could not be recognised" in err
    table = pl.read_parquet("p.parquet")
    assert table["path"].to_list() == ["one.wav", "bad.wav"]
    assert table["error"].is_null().to_list() == [True, False]


def test_a_timeline_is_printed_written_and_drawn(koser, files):
    expected = load_recognizer(files)
    status, out, err = koser("predict", ".", "one.wav", "--timeline", "--format", "json")
    assert (status, err) == (0, "")
    (timeline,) = json.loads(out)
    assert timeline["labels"] == list(LABELS)
    assert timeline["duration"] == 12.0
    assert len(timeline["segments"]) > 1
    assert expected.labels == LABELS
    _, out, _ = koser(
        "predict", ".", "one.wav", "--timeline", "--set", "window=2", "--set", "hop=2",
        "--set", 'activity.kind="off"', "--format", "csv", "--picture", "p.png",
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(out)))
    borders = np.array([[float(row["start"]), float(row["end"])] for row in rows])
    assert np.all(borders % 2 == 0)
    assert (borders[0, 0], borders[-1, 1]) == (0, 12)
    assert (files / "p.png").read_bytes().startswith(b"\x89PNG")


def test_timelines_of_several_recordings_have_a_file_each(koser, files):
    (files / "out").mkdir()
    status, _, err = koser(
        "predict", ".", "one.wav", "bad.wav", "둘.wav", "--timeline", "--format", "textgrid",
        "--out", "out",
    )  # fmt: skip
    assert status == 1
    assert "1 of 3 could not be recognised" in err
    assert sorted(path.name for path in (files / "out").iterdir()) == [
        "one.TextGrid",
        "둘.TextGrid",
    ]
    _, out, _ = koser("predict", ".", "one.wav", "둘.wav", "--timeline", "--format", "rttm")
    assert {line.split()[1] for line in out.splitlines()} == {"one", "둘"}
    status, _, _ = koser(
        "predict", ".", "one.wav", "--timeline", "--format", "srt", "--out", "a.srt"
    )
    assert status == 0
    assert " --> " in (files / "a.srt").read_text(encoding="utf-8")


def test_speakers_of_another_tool_are_named(koser, files):
    (files / "s.rttm").write_text(
        "SPEAKER one 1 0 5 <NA> <NA> 상담원 <NA> <NA>\n"
        "SPEAKER one 1 5 7 <NA> <NA> 고객 <NA> <NA>\n",
        encoding="utf-8",
    )
    status, out, _ = koser(
        "predict", ".", "one.wav", "--timeline", "--speakers", "s.rttm", "--format", "vtt"
    )
    assert status == 0
    assert "상담원: " in out
    assert "고객: " in out
    status, _, err = koser("predict", ".", "둘.wav", "--timeline", "--speakers", "s.rttm")
    assert status == 1
    assert "no speaker turns of '둘'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", ".", "one.wav", "--set", "hop=1"], "Add --timeline"),
        (["predict", ".", "one.wav", "--picture", "a.png"], "Add --timeline"),
        (["predict", ".", "--manifest", "m", "--out", "f", "--set", "hop=1"], "Add --timeline"),
        (["predict", ".", "one.wav", "--format", "srt"], "'srt' is a format of timelines"),
        (["predict", ".", "one.wav", "--format", "parquet"], "Give --out FILE.parquet"),
        (["predict", ".", "one.wav", "--labels", "joy,calm"], "does not know 'joy'"),
        (["predict", ".", "one.wav", "--threshold", "2"], "between 0 and 1"),
        (["predict", ".", "--manifest", "m", "--timeline"], "not a manifest"),
        (["predict", ".", "one.wav", "--timeline", "--format", "parquet"], "No timeline format"),
        (["predict", ".", "one.wav", "둘.wav", "--timeline", "--format", "srt"], "not of 2"),
        (["predict", ".", "one.wav", "둘.wav", "--timeline", "--picture", "a.png"], "not of 2"),
        (["predict", ".", "one.wav", "--timeline", "--set", "hops=1"], "unknown key 'hops'"),
        (["predict", "none.onnx", "one.wav"], "No model at 'none.onnx'"),
        (["export", "none", "--out", "a.onnx"], "No checkpoint at 'none'"),
        (["export", ".", "--out", "a.bin"], "ends in .onnx"),
    ],
)
def test_what_cannot_be_done_is_one_line(koser, files, arguments, message):
    status, out, err = koser(*arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_an_explanation_is_printed_drawn_and_told_as_json(koser, files):
    part = ["one.wav", "--start", "1", "--end", "3"]
    status, out, err = koser("explain", ".", *part, "--format", "json", "--picture", "e.png")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert list(found["probabilities"]) == list(LABELS)
    assert [cell["start"] for cell in found["cells"]] == pytest.approx(0.1 * np.arange(20))
    assert found["words"] == []
    with Image.open("e.png") as image:
        assert image.width > 6.7 * canvas.DPI  # inches
    status, out, _ = koser("explain", ".", *part)
    assert status == 0
    strongest = max(found["cells"], key=lambda cell: abs(cell["evidence"]))
    assert f"{strongest['evidence']:+.3f}" in out.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.wav"], "No audio file at 'none.wav'"),
        (["bad.wav"], "bad.wav"),
        (["one.wav", "--start", "3", "--end", "1"], "holds no samples"),
        (["one.wav", "--set", "hop=1"], "exceeds window"),
    ],
)
def test_what_cannot_be_explained_is_one_line(koser, files, arguments, message):
    status, _, err = koser("explain", ".", *arguments)
    assert status == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1
