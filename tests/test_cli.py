"""The ``koser`` command, called as a user types it."""

import csv
import json
import sys

import polars as pl
import pytest

from koser.cli import main
from koser.data.manifest import Manifest
from koser.data.splits import Split

QUICK = ["--set", "train.epochs=2", "--set", "cnn.channels=[4, 6]", "--set", "cnn.hidden_size=8"]


@pytest.fixture
def koser(monkeypatch, capsys, tmp_path):
    """Call the command in an empty folder; returns status, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KOSER_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["koser", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as error:
            status = error.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def manifest(koser, tone_corpus):
    status, out, err = koser(
        "prepare", "folder", tone_corpus(), "--speaker-pattern", r"(s\d)_", "--out", "m.parquet"
    )
    assert status == 0, err
    assert "36" in out
    return "m.parquet"


def test_from_a_folder_to_predictions(koser, manifest, tmp_path):
    status, out, _ = koser("info", manifest)
    assert status == 0
    assert "sadness" in out
    status, out, _ = koser("split", manifest, "--by", "kfold", "--folds", "3", "--out", "s.parquet")
    assert status == 0
    kept = Split.read(tmp_path / "s.parquet")
    assert kept.hash in out
    status, out, err = koser(
        "train", "--model", "mfcc", "--manifest", manifest, "--split", "s.parquet",
        "--out", "run", "--seeds", "2", "--workers", "1", *QUICK,
    )  # fmt: skip
    assert status == 0, err
    for text in (
        "UAR",
        "chance 0.333",
        "majority",
        "n = 36",
        "6 speakers",
        "3 folds",
        "seeds 42, 43",
    ):
        assert text in " ".join(out.split()), text
    assert "±" in out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["protocol"]["hash"] == kept.hash
    status, _, err = koser(
        "predict", "run", "--manifest", manifest, "--format", "csv", "--out", "p.csv"
    )
    assert status == 0, err
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == Manifest.read(tmp_path / manifest).table[
        "path"
    ].to_list()


def test_a_users_table_with_its_own_column_names(koser, tone_corpus, tmp_path):
    root = tone_corpus(n_speakers=2)
    files = sorted(root.rglob("*.wav"))
    table = pl.DataFrame(
        {
            "file": [str(path.relative_to(tmp_path)) for path in files],
            "emotion": [path.parent.name for path in files],
            "who": [path.stem.split("_")[0] for path in files],
        }
    )
    table.write_csv(tmp_path / "mine.csv")
    status, _, err = koser(
        "prepare", "table", "mine.csv", "--out", "m.parquet", "--synthetic",
        "--column", "path=file", "--column", "label=emotion", "--column", "speaker=who",
    )  # fmt: skip
    assert status == 0, err
    made = Manifest.read(tmp_path / "m.parquet")
    assert made.table["speaker"].n_unique() == 2
    assert made.provenance.is_synthetic


def test_synthetic_speech_is_called_so_wherever_a_number_stands(koser, manifest, tmp_path):
    table = Manifest.read(tmp_path / manifest).table.select("path", "label", "speaker")
    table.write_csv(tmp_path / "mine.csv")
    koser("prepare", "table", "mine.csv", "--synthetic", "--out", "synthetic.parquet")
    _, out, _ = koser("info", "synthetic.parquet")
    assert "SYNTHETIC" in out
    status, out, err = koser(
        "train", "--model", "mfcc", "--manifest", "synthetic.parquet", "--split", "random",
        "--out", "run", *QUICK,
    )  # fmt: skip
    assert status == 0, err
    assert "SYNTHETIC DATA" in out
    assert "mfcc_random (synthetic)" in " ".join(out.split())
    results = json.loads((tmp_path / "run" / "results_mfcc_random.json").read_text("utf-8"))
    assert results["is_synthetic"] is True
    assert (tmp_path / "run" / "report.html").read_text("utf-8").count("SYNTHETIC DATA") >= 3


TRAIN = "train --model mfcc --manifest m.parquet"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prepare folder gone --out x.parquet", "gone"),
        ("prepare ravdes . --out x.parquet", "ravdess"),
        ("prepare table gone.csv --out x.parquet", "gone.csv"),
        ("prepare ravdess . --labels soft --out x.parquet", "labels"),
        ("prepare table a.csv --column label --out x", "KOSER_COLUMN=YOUR"),
        ("info gone.parquet", "koser prepare"),
        ("split m.parquet --by speakers --out s.parquet", "speaker"),
        ("split m.parquet --by session --out s.parquet", "session"),
        ("split m.parquet --by speaker --test-fraction 2 --out s.parquet", "test_fraction"),
        ("train --model mfcc --split speaker", "--manifest"),
        (f"{TRAIN} --split gone.parquet", "gone.parquet"),
        (f"{TRAIN} --split random --config gone.toml", "gone.toml"),
        (f"{TRAIN} --split random --set epochs", "KEY=VALUE"),
        (f"{TRAIN} --split random --set train.epochs=0", "train.epochs = 0"),
        (f"{TRAIN} --split random --resume", "No unfinished run"),
        ("predict gone a.wav", "No checkpoint"),
        ("predict .", "Nothing to recognise"),
    ],
)
@pytest.mark.usefixtures("manifest")
def test_mistakes_end_in_one_line_and_status_1(koser, tmp_path, line, message):
    before = sorted(path.name for path in tmp_path.iterdir())
    status, _, err = koser(*line.split())
    assert status == 1
    assert message in err
    assert err.startswith("Error: ")
    assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "something was left behind"


def test_a_wrong_option_ends_in_status_2(koser):
    assert koser("train", "--modle", "mfcc")[0] == 2


def test_debug_shows_the_traceback(koser):
    with pytest.raises(ValueError, match="No manifest at"):
        koser("info", "gone.parquet", "--debug")


def test_what_is_left_out_can_be_listed(koser, tmp_path, tone_corpus):
    root = tone_corpus(n_speakers=2)
    (root / "angry" / "broken.wav").write_bytes(b"RIFF")
    status, out, _ = koser("prepare", "folder", root, "--out", "m.parquet")
    assert status == 0
    assert "left out: unreadable audio" in out
    _, out, _ = koser("info", "m.parquet", "--left-out")
    assert "broken" in out
    assert "unreadable audio" in out
