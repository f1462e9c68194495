"""The document's three commands, as typed, on an AI Hub-shaped folder."""

import csv
import json

import pytest

from fixtures.aihub263 import invent_rows, write_corpus
from fixtures.commands import run_as_typed, run_here
from koser.labels import EMOTIONS

RAW = "감정 분류를 위한 대화 음성 데이터셋"
QUICK = ["--set", "train.epochs=2", "--set", "cnn.channels=[4, 6]", "--set", "cnn.hidden_size=8"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A current folder in which a raw corpus was prepared and a system trained."""
    folder = tmp_path_factory.mktemp("work")
    write_corpus(folder / RAW, invent_rows((30, 30, 42)), n_strays=1, seconds=0.3)
    for command in (
        ["preprocess.py"],
        ["main.py", "--model", "mfcc", "--split", "speaker", *QUICK],
    ):
        result = run_as_typed(folder, *command)
        assert result.status == 0, result.err
        (folder / f"{command[0]}.out").write_text(result.out, encoding="utf-8")
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
    folder = run_as_typed(work, "predict.py", "data/emotions/angry", "--format", "csv")
    assert folder.status == 0, folder.err
    rows = list(csv.DictReader(folder.out.splitlines()))
    assert len(rows) == len(list((work / "data" / "emotions" / "angry").iterdir()))
    labels = list(EMOTIONS)
    for row in rows:
        assert sum(float(row[label]) for label in labels) == pytest.approx(1)

    one = run_here(work, "predict.py", rows[0]["path"], "--format", "json")
    (prediction,) = json.loads(one.out)
    assert prediction["probabilities"][labels[0]] == pytest.approx(
        float(rows[0][labels[0]]), abs=1e-5
    )


def test_another_split_leaves_its_own_files_and_run(work):
    random = run_here(work, "main.py", "--model", "mfcc", "--split", "random", *QUICK)
    assert random.status == 0, random.err
    assert (work / "results_mfcc_random.json").is_file()
    assert (work / "results_mfcc_speaker.json").is_file()
    assert {folder.name.rsplit("_", 1)[0] for folder in (work / "runs").iterdir()} == {
        "mfcc_speaker",
        "mfcc_random",
    }


def test_both_splits_at_once_leave_the_files_of_both_and_the_gap(work, tmp_path):
    (tmp_path / "data").symlink_to(work / "data")
    both = run_here(tmp_path, "main.py", "--split", "random", "--split", "speaker", *QUICK)
    assert both.status == 0, both.err
    assert "random - speaker: UAR" in both.out
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
    result = run_here(work, "predict.py", "mixed")
    assert result.status == 1
    assert "mixed/good.wav" in result.out
    assert "mixed/bad.wav" in result.err
    assert "1 of 2 could not be recognised" in result.err
    assert "Traceback" not in result.err


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
def test_mistakes_are_refused_in_one_line(work, script, arguments, status, message):
    refused = run_here(work, script, *arguments)
    assert refused.status == status
    assert message in refused.err
    assert "Traceback" not in refused.err
    if status == 1:
        assert len(refused.err.strip().splitlines()) <= 2


def test_a_speaker_split_without_speakers_says_how_to_supply_them(tmp_path, tone_corpus):
    result = run_here(tmp_path, "main.py", "--data", tone_corpus(), "--split", "speaker")
    assert result.status == 1
    for text in ("speaker", "--speaker-pattern", "preprocess.py"):
        assert text in result.err
    assert not (tmp_path / "runs").exists()
