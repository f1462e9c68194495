"""The ``koser`` command, called as a user types it."""

import csv
import json
import logging
import tomllib

import polars as pl
import pytest

from fixtures.encoders import save_encoder
from fixtures.recognizers import mfcc_checkpoint
from koser.cli import run_app
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.errors import CheckpointError
from koser.reporting.wording import gap_line
from koser.systems import SYSTEM_NAMES
from koser.systems.mfcc import MfccSystem

QUICK = ["--set", "train.epochs=2", "--set", "cnn.channels=[4, 6]", "--set", "cnn.hidden_size=8"]


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
        (f"{TRAIN} --split random --split random", "--split random is given twice"),
        (f"{TRAIN} --split random --split session", "session"),
        (f"{TRAIN} --split random --split speaker --resume", "No runs runs/mfcc_random_*"),
        (f"{TRAIN} --split random --encoder a/b", "System 'mfcc' has no encoder"),
        ("extract m.parquet --features mfccs", "No system is called 'mfccs'"),
        ("extract gone.parquet --features mfcc", "gone.parquet"),
        ("extract m.parquet --features mfcc --encoder a/b", "System 'mfcc' has no encoder"),
        ("extract m.parquet --features mfcc --set mfcc.n_mfc=3", "unknown key 'mfcc.n_mfc'"),
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


SERIES = ["--manifest", "m.parquet", "--split", "random", "--split", "speaker", "--workers", "1"]


@pytest.mark.usefixtures("manifest")
def test_several_splits_are_several_runs_and_the_gap_between_them(koser, tmp_path):
    status, out, err = koser("train", "--model", "mfcc", *SERIES, "--out", "both", *QUICK)
    assert status == 0, err
    gap = json.loads((tmp_path / "both" / "gap.json").read_text(encoding="utf-8"))
    for name in ("random", "speaker"):
        folder = tmp_path / "both" / f"mfcc_{name}"
        assert (folder / f"results_mfcc_{name}.json").is_file()
        assert f"Report: {folder.relative_to(tmp_path) / 'report.html'}" in out
    assert gap_line(gap["gaps"][0]) in out
    rows = [
        line for line in out.splitlines() if line.startswith("│ random") or "│ speaker " in line
    ]
    assert len(rows) == 2, "a table of both"

    # What is taken is refused before anything is trained.
    (tmp_path / "both" / "mfcc_random").rename(tmp_path / "kept")
    status, _, err = koser("train", "--model", "mfcc", *SERIES, "--out", "both", *QUICK)
    assert status == 1
    assert "mfcc_speaker' is not empty" in err
    assert not (tmp_path / "both" / "mfcc_random").exists()


@pytest.mark.usefixtures("manifest")
def test_a_killed_series_resumes_without_repeating_what_was_finished(koser, tmp_path, monkeypatch):
    n_fits = 0
    fit = MfccSystem.fit

    def killed(*args, **kwargs):
        nonlocal n_fits
        n_fits += 1
        if n_fits == 2:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(MfccSystem, "fit", killed)
    train = ["train", "--model", "mfcc", *SERIES, *QUICK]
    assert koser(*train)[0] == 130
    assert koser(*train, "--resume")[0] == 0
    assert n_fits == 3
    runs = sorted(path.name.rsplit("_", 1)[0] for path in (tmp_path / "runs").iterdir())
    assert runs == ["gap_mfcc_random_speaker", "mfcc_random", "mfcc_speaker"]
    # Once more: nothing is left to do but to compare.
    status, out, _ = koser(*train, "--resume")
    assert (status, n_fits) == (0, 3)
    assert "random - speaker" in out


def test_extracted_ahead_and_again(koser, manifest, tmp_path):
    status, out, err = koser("extract", manifest, "--features", "mfcc", "--store", "here")
    assert status == 0, err
    for text in ("clips 36", "× real time", "store here (", "MB new"):
        assert text in " ".join(out.split()), text
    stores = {path: path.stat().st_size for path in (tmp_path / "here").glob("*/*.bin")}
    status, out, _ = koser("extract", manifest, "--features", "mfcc", "--store", "here")
    assert "everything was there" in out
    koser("train", "--model", "mfcc", "--manifest", manifest, "--split", "random",
          "--store", "here", "--out", "run", *QUICK)  # fmt: skip
    # What the audit measures of the sound has a store of its own.
    assert stores == {path: path.stat().st_size for path in stores}


@pytest.mark.usefixtures("manifest")
def test_what_koser_warns_of_is_shown_once_and_logged(koser, tmp_path, monkeypatch):
    fit = MfccSystem.fit

    def warned(*args, **kwargs):
        logging.getLogger("koser.systems.mfcc").warning("The plain [way] of %s.", "'/a/[b]'")
        logging.getLogger("koser.systems.mfcc").info("Nobody needs to know.")
        return fit(*args, **kwargs)

    monkeypatch.setattr(MfccSystem, "fit", warned)
    handlers = logging.getLogger("koser").handlers[:]
    status, out, err = koser(
        "train", "--model", "mfcc", *SERIES, "--seeds", "2", "--out", "both", *QUICK
    )
    assert status == 0, err
    assert err.splitlines() == ["Note: The plain [way] of '/a/[b]'."]
    assert "plain" not in out
    for name in ("random", "speaker"):
        log = (tmp_path / "both" / f"mfcc_{name}" / "train.log").read_text(encoding="utf-8")
        assert "WARNING The plain [way]" in log
    assert logging.getLogger("koser").handlers == handlers


def test_help_names_every_system(koser):
    for command in ("train", "extract"):
        _, out, _ = koser(command, "--help")
        for name in SYSTEM_NAMES:
            assert name in out


def test_an_encoder_in_a_folder_is_remembered_by_its_absolute_path(koser, manifest, tmp_path):
    save_encoder("wav2vec2", tmp_path / "tiny")
    status, out, err = koser("extract", manifest, "--features", "wav2vec2", "--encoder", "tiny")
    assert status == 0, err
    assert "clips 36" in " ".join(out.split())
    status, _, err = koser(
        "train", "--model", "wav2vec2", "--encoder", "tiny", "--manifest", manifest,
        "--split", "speaker", "--out", "run", "--set", "train.epochs=2",
    )  # fmt: skip
    assert status == 0, err
    settings = tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))
    assert settings["encoder"]["name"] == str((tmp_path / "tiny").resolve())
    features = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))["features"]
    assert features["encoder"] == settings["encoder"]["name"]
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f">가중치 지문</th><td>{features['fingerprint']}</td>" in report


@pytest.mark.parametrize(
    ("option", "expected"), [([], None), (["--encoder", "moved/here"], "moved/here")]
)
def test_a_moved_encoder_is_passed_to_the_recognizer(
    koser, tmp_path, monkeypatch, option, expected
):
    given = {}

    def load(model, **kwargs):
        given.update(kwargs)
        raise CheckpointError(f"No checkpoint at {model}.")

    monkeypatch.setattr("koser.inference.recognizer.load_recognizer", load)
    (tmp_path / "a.wav").touch()
    mfcc_checkpoint().write(tmp_path / "run.pth")
    assert koser("predict", "run.pth", "a.wav", *option)[0] == 1
    moved = {"encoder": expected, "whisper": None, "text_model": None}
    assert given == {**moved, "threshold": 0.0, "labels": None}


def test_brackets_in_paths_are_shown_as_they_are(koser, write_wav, tmp_path):
    folder = tmp_path / "calls [red] of [x"
    write_wav(folder / "angry" / "a.wav")
    (folder / "angry" / "[bold]b.wav").write_bytes(b"no sound")
    status, out, err = koser("prepare", "folder", folder, "--out", folder / "m.parquet")
    assert status == 0, err
    assert f"Manifest: {folder / 'm.parquet'}".replace(" ", "") in "".join(out.split())
    status, out, err = koser("info", folder / "m.parquet", "--left-out")
    assert status == 0, err
    assert "[bold]b.wav" in out


def test_an_interrupted_program_says_so_in_one_line(monkeypatch, capsys):
    def work() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as ended:
        run_app(work)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted. What was finished is kept.\n"
