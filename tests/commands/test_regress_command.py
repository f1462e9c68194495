"""Valence and arousal from the command line; the values follow the tones' pitch (SIMULATED)."""

import json

import audmetric
import numpy as np
import polars as pl
import pytest

from fixtures.encoders import save_encoder
from fixtures.kemdy import segments20, write_kemdy20
from fixtures.values import regress
from koser.audio.reading import load
from koser.data.manifest import Manifest
from koser.models.checkpoint import load_tensors, save_tensors
from koser.systems.dimensions import DimensionalSystem


def test_values_are_learnt_scored_kept_and_read_back(koser, rated):
    status, out, err = regress(koser, "mfcc", "--out", "run")
    assert status == 0, err
    assert "CCC [95 %]" in out
    results = json.loads((rated / "run" / "dimensions.json").read_text(encoding="utf-8"))
    predictions = pl.read_parquet(rated / "run" / "predictions.parquet")
    assert results["n"] == predictions.height == 34
    assert results["left_out"] == {"no valence or no arousal": 2}
    for name in ("valence", "arousal"):
        found = results["dimensions"][name]
        expected = audmetric.concordance_cc(predictions[name], predictions[f"predicted_{name}"])
        assert found["ccc"] == pytest.approx(expected)
        assert found["ci95"]["ccc"][0] < found["ccc"] < found["ci95"]["ccc"][1]
        assert found["ccc"] > 0.3  # pitch is all there is to hear
        assert found["rmse"] < results["rmse_of_mean"][name]
    # The kept model gives the values that it was tested with.
    kept = DimensionalSystem.read(str(rated / "run"))
    chosen = max(results["folds"], key=lambda fold: fold["best_val_ccc"])
    own = predictions.filter(fold=chosen["fold"]).head(5)
    paths = dict(Manifest.read(rated / "m.parquet").table.select("id", "path").iter_rows())
    values = kept.predict_waveforms([load(paths[name]) for name in own["id"]])
    expected = own.select("predicted_valence", "predicted_arousal").to_numpy()
    np.testing.assert_allclose(values, expected, atol=1e-4)


def test_a_kept_split_is_of_all_rows_also_of_those_without_values(koser, rated):
    assert koser("split", "m.parquet", "--by", "speaker", "--out", "s.parquet")[0] == 0
    status, _, err = regress(koser, "mfcc", "--out", "run", split=("--split", "s.parquet"))
    assert status == 0, err
    whole = pl.read_parquet(rated / "s.parquet")
    tested = set(pl.read_parquet(rated / "run" / "predictions.parquet")["id"])
    unrated = Manifest.read(rated / "m.parquet").table
    unrated = set(unrated.filter(pl.col("valence").is_null() | pl.col("arousal").is_null())["id"])
    assert tested == set(whole.filter(part="test")["id"]) - unrated
    results = json.loads((rated / "run" / "dimensions.json").read_text(encoding="utf-8"))
    assert "2 utterances of the split are left out." in results["protocol"]["notes"]


def test_a_finished_training_is_not_repeated_and_another_experiment_is_refused(koser, rated):
    assert regress(koser, "mfcc", "--out", "run")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (rated / "run").glob("parts/*/*.pth")}
    assert regress(koser, "mfcc", "--out", "run")[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(before) == 4
    status, _, err = regress(koser, "mfcc", "--out", "run", "--loss", "mse")
    assert status == 1
    assert "holds another experiment" in err


def test_a_finished_training_on_other_values_is_not_taken_over(koser, rated):
    assert regress(koser, "mfcc", "--out", "run")[0] == 0
    made = Manifest.read(rated / "m.parquet")
    table = made.table.with_columns(valence=pl.col("valence") + 1)
    Manifest(table, made.provenance).write(rated / "m.parquet")
    status, _, err = regress(koser, "mfcc", "--out", "run")
    assert status == 1
    assert "trained on other values or sound" in err
    for outcome in (rated / "run").glob("parts/*/outcome.pth"):
        values = load_tensors(outcome)
        del values["taught"]  # as an older koser left it
        save_tensors(values, outcome)
    assert regress(koser, "mfcc", "--out", "run")[0] == 0


def test_a_training_on_another_encoder_at_the_same_path_is_not_taken_over(koser, rated):
    encoder = save_encoder("wav2vec2", rated / "encoder")
    command = ("wav2vec2", "--out", "run", "--encoder", encoder)
    assert regress(koser, *command)[0] == 0
    assert regress(koser, *command)[0] == 0  # the same encoder: nothing is refused
    (rated / "run" / "parts" / "seed42-fold01" / "outcome.pth").unlink()  # as if killed before
    save_encoder("wav2vec2", encoder, seed=1)
    status, _, err = regress(koser, *command)
    assert status == 1
    assert "seed42-fold00" in err
    assert "the encoder, or how koser computes them, has changed since" in err


def test_a_head_on_a_speech_encoder_gives_values_too(koser, rated, encoder_folder):
    status, _, err = regress(
        koser, "wav2vec2", "--out", "run", "--encoder", encoder_folder("wav2vec2"), "--loss", "mse"
    )
    assert status == 0, err
    kept = DimensionalSystem.read(rated / "run" / "best_model_wav2vec2.pth")
    values = kept.predict_waveforms([np.zeros(8000, np.float32)])
    assert values.shape == (1, 2)
    assert np.isfinite(values).all()


def test_a_corpus_that_keeps_values_is_learnt_from_as_its_adapter_gives_them(koser, tmp_path):
    write_kemdy20(tmp_path / "kemdy", {1: segments20(1), 2: segments20(2)})
    assert koser("prepare", "kemdy20", "kemdy", "--out", "m.parquet")[0] == 0
    status, out, err = regress(koser, "mfcc", "--out", "run", "--set", "train.epochs=1")
    assert status == 0, err
    table = Manifest.read(tmp_path / "m.parquet").table
    predictions = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    joined = predictions.join(table, on="id", suffix="_given")
    assert joined.height == table.height == 24
    assert joined["valence"].to_list() == joined["valence_given"].to_list()
    assert "24" in out
    assert "4 × speaker" in out


def test_such_a_model_is_refused_where_labels_are_wanted_in_one_line(koser, rated):
    assert regress(koser, "mfcc", "--out", "run")[0] == 0
    path = Manifest.read(rated / "m.parquet").table["path"][0]
    for command in (
        ["explain", "run", path],
        ["export", "run", "--out", "m.onnx"],
    ):
        status, _, err = koser(*command)
        assert status == 1, command
        assert "a model of valence and arousal" in err
        assert "`koser predict` and `koser serve` take it" in err
        assert len(err.strip().splitlines()) == 1


def test_what_makes_no_sense_is_refused(koser, rated):
    for arguments, message in (
        (["--loss", "mae"], "choose one of ccc, mse"),
        (["--set", "train.balance=corpus+label"], "values have no labels"),
        (["--set", "corpora.adversary=1"], "adversary is for labels"),
        (["--set", "train.accumulate=2"], "Raise train.batch_size"),
    ):
        status, _, err = regress(koser, "mfcc", "--out", "run", *arguments)
        assert status == 1
        assert message in err
    status, _, err = koser(
        "regress", "--model", "multimodal", "--manifest", "m.parquet", "--split", "speaker"
    )
    assert "no head for valence and arousal" in err
    status, _, err = koser(
        "regress", "--model", "mfcc", "--manifest", "labels.parquet", "--split", "speaker"
    )
    assert "None of the 36 utterances has valence and arousal" in err
