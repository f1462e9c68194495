"""The document's three commands, as typed, on an AI Hub-shaped folder."""

import csv
import json
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fixtures.aihub263 import invent_rows, write_corpus
from koser.labels import EMOTIONS

ROOT = Path(__file__).resolve().parents[1]
RAW = "감정 분류를 위한 대화 음성 데이터셋"
QUICK = ["--set", "train.epochs=2", "--set", "cnn.channels=[4, 6]", "--set", "cnn.hidden_size=8"]


def run(folder, script, *arguments):
    environment = {**os.environ, "KOSER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A current folder in which a raw corpus was prepared and a system trained."""
    folder = tmp_path_factory.mktemp("work")
    write_corpus(folder / RAW, invent_rows((30, 30, 42)), n_strays=1, seconds=0.3)
    for command in (
        ["preprocess.py"],
        ["main.py", "--model", "mfcc", "--split", "speaker", *QUICK],
    ):
        result = run(folder, *command)
        assert result.returncode == 0, result.stderr
        (folder / f"{command[0]}.out").write_text(result.stdout, encoding="utf-8")
    return folder


def test_the_raw_folder_becomes_links_by_label(work):
    links = list((work / "data" / "emotions").glob("*/*.wav"))
    assert len(links) == 102
    assert all(link.is_symlink() and link.exists() for link in links)


def test_training_leaves_the_documents_files_here_and_the_run_whole(work):
    for name in (
        "best_model_mfcc.pth",
        "training_history_mfcc_speaker.png",
        "confusion_matrix_mfcc_speaker.png",
        "results_mfcc_speaker.json",
    ):
        assert (work / name).is_file(), name
    results = json.loads((work / "results_mfcc_speaker.json").read_text(encoding="utf-8"))
    assert results["protocol"]["grouping"] == "group(age×gender)"
    assert "group(age×gender)" in (work / "main.py.out").read_text(encoding="utf-8")
    assert results["num_train"] + results["num_val"] + results["num_test"] == 102
    assert any((work / "runs").glob("mfcc_speaker_*/predictions.parquet"))


def test_prediction_uses_the_newest_model_here(work):
    folder = run(work, "predict.py", "data/emotions/angry", "--format", "csv")
    assert folder.returncode == 0, folder.stderr
    rows = list(csv.DictReader(folder.stdout.splitlines()))
    assert len(rows) == len(list((work / "data" / "emotions" / "angry").iterdir()))
    labels = list(EMOTIONS)
    for row in rows:
        assert sum(float(row[label]) for label in labels) == pytest.approx(1)

    one = run(work, "predict.py", rows[0]["path"], "--format", "json")
    (prediction,) = json.loads(one.stdout)
    assert prediction["probabilities"][labels[0]] == pytest.approx(
        float(rows[0][labels[0]]), abs=1e-5
    )


def test_another_split_leaves_its_own_files_and_run(work):
    random = run(work, "main.py", "--model", "mfcc", "--split", "random", *QUICK)
    assert random.returncode == 0, random.stderr
    assert (work / "results_mfcc_random.json").is_file()
    assert (work / "results_mfcc_speaker.json").is_file()
    assert {folder.name.rsplit("_", 1)[0] for folder in (work / "runs").iterdir()} == {
        "mfcc_speaker",
        "mfcc_random",
    }


def test_both_splits_at_once_leave_the_files_of_both_and_the_gap(work, tmp_path):
    (tmp_path / "data").symlink_to(work / "data")
    both = run(tmp_path, "main.py", "--split", "random", "--split", "speaker", *QUICK)
    assert both.returncode == 0, both.stderr
    assert "random - speaker: UAR" in both.stdout
    for name in ("results_mfcc_random.json", "results_mfcc_speaker.json"):
        assert (tmp_path / name).is_file()
    gap = json.loads((tmp_path / "gap_mfcc_random_speaker.json").read_text(encoding="utf-8"))
    assert gap["gaps"][0]["cluster_kind"] == "group(age×gender)"
    # The model here is that of the last split.
    (last,) = (tmp_path / "runs").glob("mfcc_speaker_*/best_model_mfcc.pth")
    assert (tmp_path / "best_model_mfcc.pth").read_bytes() == last.read_bytes()


def test_a_bad_file_among_others_is_named_and_ends_in_status_1(work):
    (work / "mixed").mkdir(exist_ok=True)
    (work / "mixed" / "bad.wav").write_bytes(b"no sound")
    good = next((work / "data" / "emotions" / "angry").iterdir())
    (work / "mixed" / "good.wav").write_bytes(good.read_bytes())
    result = run(work, "predict.py", "mixed")
    assert result.returncode == 1
    assert "mixed/good.wav" in result.stdout
    assert "mixed/bad.wav" in result.stderr
    assert "1 of 2 could not be recognised" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "status", "message"),
    [
        ("main.py", ["--data", "nowhere"], 1, "nowhere"),
        ("main.py", ["--model", "mfc"], 1, "Systems: mfcc"),
        ("main.py", ["--split", "speakers"], 1, "speaker"),
        ("main.py", ["--set", "train.epoch=2"], 1, "unknown key 'train.epoch'"),
        ("main.py", ["--split", "random", "--split", "random"], 1, "given twice"),
        ("main.py", ["--encoder", "a/b"], 1, "'mfcc' has no encoder"),
        ("main.py", ["--nonsense"], 2, "No such option"),
        ("predict.py", [], 2, "Missing argument"),
        ("predict.py", ["--model", "data", "a.wav"], 1, "best_model_"),
        ("predict.py", ["gone.wav"], 1, "gone.wav"),
    ],
)
def test_mistakes_are_refused_in_one_line(
    work, monkeypatch, typed, script, arguments, status, message
):
    monkeypatch.chdir(work)
    program = partial(runpy.run_path, str(ROOT / script), run_name="__main__")
    got, _, error = typed(program, *arguments)
    assert got == status
    assert message in error
    assert "Traceback" not in error
    if status == 1:
        assert len(error.strip().splitlines()) <= 2


def test_a_speaker_split_without_speakers_says_how_to_supply_them(tmp_path, tone_corpus):
    result = run(tmp_path, "main.py", "--data", str(tone_corpus()), "--split", "speaker")
    assert result.returncode == 1
    for text in ("speaker", "--speaker-pattern", "preprocess.py"):
        assert text in result.stderr
    assert not (tmp_path / "runs").exists()
