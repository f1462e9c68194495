"""``koser transcribe`` and the multimodal system, as typed; what lands, and what survives a kill.

Whisper and the text model are tiny and random. `test_real_text.py` does the same with real ones.
"""

import csv
import json
import signal
import sqlite3
import time

import pytest

from fixtures.aihub263 import invent_rows, write_corpus
from fixtures.commands import printed, run_as_typed, run_here, start_forked
from fixtures.text import credulous_settings
from koser.labels import EMOTIONS
from koser.reporting.language import load_phrases

RAW = "감정 분류를 위한 대화 음성 데이터셋"
QUICK = [
    *("--set", "train.epochs=2", "--set", "speeds=[]", "--set", "errors.variants=1"),
    *("--set", "fusion.hidden=[8, 8]"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory, whisper_folder, text_folder):
    """A current folder in which the document's commands were run on an AI Hub-shaped one."""
    folder = tmp_path_factory.mktemp("work")
    write_corpus(folder / RAW, invent_rows((30, 30, 42)), seconds=0.3)
    run_here(folder, "preprocess.py")
    models = ["--whisper", whisper_folder, "--text-model", text_folder()]
    settings = [*credulous_settings(), *QUICK]
    out = printed(run_as_typed(folder, "main.py", "--model", "multimodal", *models, *settings))
    (folder / "main.out").write_text(out, encoding="utf-8")
    return folder


def test_training_leaves_the_documents_files_here(work):
    for name in (
        "best_model_multimodal.pth",
        "training_history_multimodal_speaker.png",
        "confusion_matrix_multimodal_speaker.png",
        "results_multimodal_speaker.json",
        "transcriptions.json",
    ):
        assert (work / name).is_file(), name
    text = (work / "transcriptions.json").read_text(encoding="utf-8")
    transcriptions = json.loads(text)
    assert len(transcriptions) == 102
    assert all(transcriptions.values())
    assert "\\u" not in text, "Korean must be readable"
    (inner,) = (work / "runs").glob("multimodal_speaker_*/transcriptions.json")
    assert inner.read_text(encoding="utf-8") == text


def test_every_ablation_stands_beside_the_result(work):
    results = json.loads((work / "results_multimodal_speaker.json").read_text(encoding="utf-8"))
    ablations = results["ablations"]
    assert set(ablations) == {"audio only", "text only", "oracle text", "oracle text only"}
    (folder,) = (work / "runs").glob("multimodal_speaker_*")
    report = (folder / "report.html").read_text(encoding="utf-8")
    out = (work / "main.out").read_text(encoding="utf-8")
    for name, scores in ablations.items():
        assert scores["difference"]["uar"] == pytest.approx(results["uar"] - scores["uar"])
        korean = load_phrases("ko").named("ablations.values", name)
        for text, shown in ((report, korean), (out, name)):
            assert shown in text
            assert f"{scores['uar']:.3f}" in text
    assert results["features"]["transcripts"] == {"ok": 102}
    assert results["features"]["character error rate"] > 0


def test_sound_alone_is_recognised_with_the_trained_system(work):
    out = printed(run_here(work, "predict.py", "data/emotions/angry", "--format", "csv"))
    rows = list(csv.DictReader(out.splitlines()))
    assert len(rows) == len(list((work / "data" / "emotions" / "angry").iterdir()))
    for row in rows:
        assert sum(float(row[label]) for label in EMOTIONS) == pytest.approx(1)
    # Nobody's words are kept: these are the corpus's, each by its file and by its samples.
    with sqlite3.connect(work / "cache" / "features" / "transcripts.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM transcript").fetchone() == (2 * 102,)


@pytest.fixture
def manifest(koser, tone_corpus):
    status, _, err = koser(
        "prepare", "folder", tone_corpus(n_speakers=5, n_each=2), "--out", "m.parquet",
        "--speaker-pattern", r"(s\d)_",
    )  # fmt: skip
    assert status == 0, err
    return "m.parquet"


def test_ablations_have_intervals_and_are_not_trained_again_when_resumed(
    koser, manifest, whisper_folder, text_folder, tmp_path
):
    command = [
        "train", "--model", "multimodal", "--whisper", whisper_folder, "--text-model",
        text_folder(), "--manifest", manifest, "--split", "kfold", "--folds", "2",
        "--val-fraction", "0", "--out", "run", "--workers", "1", *credulous_settings(), *QUICK,
    ]  # fmt: skip
    status, _, err = koser(*command)
    assert status == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["ablations"]) == {"audio only", "text only"}
    intervals = [
        (part["ci95"][score], part[score])
        for scores in metrics["ablations"].values()
        for part in (scores, scores["difference"])
        for score in ("uar", "accuracy")
    ]
    known = [(bounds, value) for bounds, value in intervals if bounds is not None]
    assert known  # a score that is the same for all speakers has none
    assert all(low <= value <= high for (low, high), value in known)
    members = list((tmp_path / "run" / "ablations").glob("*/*/outcome.pth"))
    assert len(members) == 4
    times = {member: member.stat().st_mtime_ns for member in members}
    (tmp_path / "run" / "report.html").unlink()
    members[0].unlink()
    status, _, err = koser(*command, "--resume")
    assert status == 0, err
    again = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert again["ablations"] == metrics["ablations"]
    changed = [member for member in members if member.stat().st_mtime_ns != times[member]]
    assert changed == [members[0]]


def test_transcripts_are_made_once_and_written_as_asked(koser, manifest, whisper_folder, tmp_path):
    command = ["transcribe", manifest, "--whisper", whisper_folder, *credulous_settings()]
    status, out, err = koser(*command, "--out", "t.json")
    assert (status, err) == (0, "")
    assert "30" in out
    assert "of real time" in out
    texts = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    status, out, err = koser(*command, "--out", "t.csv")
    assert (status, err) == (0, "")
    assert "of real time" not in out, "nothing was transcribed"
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: row["text"] for row in rows} == texts
    assert {row["status"] for row in rows} == {"ok"}
    assert all(float(row["avg_logprob"]) < 0 for row in rows)
    assert all(0 <= float(row["no_speech_prob"]) <= 1 for row in rows)
    status, _, _ = koser(*command, "--context", "full", "--language", "en", "--out", "full.csv")
    assert status == 0
    assert ",full," in (tmp_path / "full.csv").read_text(encoding="utf-8")


def test_what_is_no_speech_is_null_and_not_an_empty_text(koser, manifest, whisper_folder, tmp_path):
    status, out, _ = koser("transcribe", manifest, "--whisper", whisper_folder, "--out", "t.json")
    assert status == 0
    assert "no_speech" in out
    assert set(json.loads((tmp_path / "t.json").read_text(encoding="utf-8")).values()) == {None}


def test_a_clip_that_cannot_be_read_is_named_and_ends_in_status_1(
    koser, manifest, whisper_folder, tmp_path
):
    bad = sorted((tmp_path / "tones" / "angry").iterdir())[0]
    good = bad.read_bytes()
    bad.write_bytes(b"no sound")
    command = ["transcribe", manifest, "--whisper", whisper_folder, *credulous_settings()]
    status, out, err = koser(*command)
    assert status == 1
    assert "failed" in out
    assert bad.name in err
    assert "1 of 30 could not be transcribed." in err
    bad.write_bytes(good)
    status, out, _ = koser(*command)
    assert status == 0
    assert "failed" not in out


def test_a_killed_transcription_loses_the_batch_in_flight_and_goes_on(
    koser, manifest, whisper_folder, tmp_path
):
    command = [
        "transcribe", manifest, "--whisper", str(whisper_folder), *credulous_settings(),
        "--set", "whisper.batch_seconds=1", "--out", "t.json", "--quiet",
    ]  # fmt: skip
    cache = tmp_path / "cache" / "features" / "transcripts.sqlite"
    process = start_forked(tmp_path, "from koser.cli import main; main()", *command)
    while (n_kept := count(cache)) < 3:
        assert process.is_alive(), "it ended before it was killed"
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    n_kept = count(cache)
    assert 3 <= n_kept < 30, "it was killed in the middle"
    assert not (tmp_path / "t.json").exists()
    before = texts(cache)
    status, out, err = koser(*command)
    assert (status, err) == (0, "")
    assert f"transcribed now  {30 - n_kept}" in out
    assert before.items() <= texts(cache).items()
    assert len(json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))) == 30


def texts(cache):
    with sqlite3.connect(cache, timeout=10) as connection:
        return dict(connection.execute("SELECT clip, text FROM transcript"))


def count(cache):
    if not cache.exists():
        return 0
    try:
        return len(texts(cache)) // 2  # each by its file and by its samples
    except sqlite3.OperationalError:  # its tables are just being made
        return 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--whisper", "smal"], "No Whisper is called 'smal'"),
        (["--out", "t.txt"], "ends in .json or .csv"),
        (["--out", "gone/t.json"], "there is no folder 'gone'"),
        (["--context", "long"], "whisper.context = 'long'"),
        (["--set", "whisper.beams=2"], "unknown key 'whisper.beams'"),
        (["--whisper", "a", "--set", "whisper.name=b"], "name the Whisper twice"),
    ],
)
def test_mistakes_are_refused_in_one_line(koser, manifest, arguments, message):
    status, _, err = koser("transcribe", manifest, *arguments)
    assert status == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_options_of_models_that_a_system_does_not_have_are_refused(koser, manifest):
    for option, what in (("--whisper", "Whisper"), ("--text-model", "text model")):
        status, _, err = koser(
            "train", "--model", "mfcc", "--manifest", manifest, "--split", "random", option, "x"
        )
        assert status == 1
        assert f"System 'mfcc' has no {what}, so {option} x would change nothing" in err
        assert "multimodal" in err
