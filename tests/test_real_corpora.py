"""The main job on real speech, through the command line, as a new user would do it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from koser.data.splits import Split

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[1]
CORPORA = ROOT / ".." / "shared" / "corpora"


@pytest.fixture
def koser(tmp_path):
    """Call the command in an empty folder; returns what it prints."""

    def call(*arguments):
        environment = {**os.environ, "KOSER_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "koser", *map(str, arguments)]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
        )
        assert result.returncode == 0, result.stderr
        return " ".join(result.stdout.split())

    return call


def test_from_raw_korean_recordings_to_an_honest_score_and_predictions(koser, tmp_path):
    corpus = CORPORA / "emotiontts_open_db"
    printed = koser("prepare", "emotiontts", corpus, "--out", "m.parquet")
    assert "rows read 200 kept 200" in printed
    koser("split", "m.parquet", "--by", "speaker", "--out", "s.parquet")
    printed = koser(
        "train", "--model", "mfcc", "--manifest", "m.parquet", "--split", "s.parquet",
        "--out", "run", "--set", "train.epochs=15",
    )  # fmt: skip
    assert "n = 40, 2 speakers" in printed
    # 20 sentences, each of one emotion, read by all: the leak is named beside the score
    assert "scripts 20, in 40 test utterances" in printed
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    # Chance is .25, and 40 guesses reach .5 once in a thousand runs; full training reaches .9.
    assert metrics["uar"] > 0.5
    split = Split.read(tmp_path / "s.parquet")
    predicted = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert sorted(predicted["id"]) == sorted(split.ids(0, "test"))
    wav = next(corpus.rglob("neo00001.wav"))
    (prediction,) = json.loads(koser("predict", "run", wav, "--format", "json"))
    assert set(prediction["probabilities"]) == {"angry", "happiness", "neutral", "sadness"}


def test_ravdess_on_its_published_folds_is_better_than_chance_after_little_training(
    koser, tmp_path
):
    koser("prepare", "ravdess", CORPORA / "ravdess", "--out", "m.parquet")
    koser(
        "train", "--model", "mfcc", "--manifest", "m.parquet", "--split", "fixed:ravdess",
        "--out", "run", "--set", "train.epochs=3", "--set", "speeds=[]",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["n"], metrics["n_speakers"], len(metrics["folds"])) == (1440, 24, 6)
    low, _ = metrics["ci95"]["uar"]
    assert low > 1 / 8


@pytest.mark.parametrize(("name", "n_rows"), [("emotiontts", 200), ("ravdess", 1440)])
def test_a_copy_at_hand_is_taken_recognised_and_prepared(koser, name, n_rows):
    folder = {"emotiontts": "emotiontts_open_db"}.get(name, name)
    printed = koser("get", name, "--from", CORPORA / folder, "--accept-licence")
    assert "CC BY-NC-SA 4.0" in printed
    assert "a copy of a folder, checked only to hold at least" in printed
    printed = koser("prepare", "auto", f"corpora/{name}", "--out", "m.parquet")
    assert f"looks like {name}" in printed
    assert f"rows read {n_rows:,} kept {n_rows:,}" in printed
