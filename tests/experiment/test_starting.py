"""Runs that start from a trained model: what is recorded, resumed, and refused as a leak."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import soundfile
import torch

from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions
from koser.errors import ConfigError, RunError, SplitError
from koser.experiment.request import TrainRequest
from koser.experiment.run import Listeners, run_experiment
from koser.experiment.starting import speaker_keys
from koser.models.checkpoint import Checkpoint
from koser.reporting.language import load_phrases

QUICK = ("train.epochs=3", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")


class KilledError(Exception):
    pass


def elsewhere(manifest, path, *, corpus="elsewhere", labels=None):
    """The same sound as another corpus, with labels renamed."""
    names = labels or {}
    table = manifest.table.with_columns(
        pl.col("label").replace(names), pl.lit(corpus).alias("corpus")
    )
    kept = tuple(sorted(names.get(label, label) for label in manifest.labels))
    Manifest(table, replace(manifest.provenance, labels=kept)).validate().write(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``m.parquet``, ``other.parquet`` (another corpus, fear for sadness), and ``before``."""
    root, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(0)
    for label, pitch in {"angry": 900.0, "neutral": 300.0, "sadness": 120.0}.items():
        (root / "tones" / label).mkdir(parents=True)
        for speaker in range(6):
            for take in range(2):
                times = np.arange(round(16_000 * rng.uniform(0.2, 0.3))) / 16_000
                tone = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * times)
                soundfile.write(root / "tones" / label / f"s{speaker}_{take}.wav", tone, 16_000)
    prepare(root / "tones", speaker_pattern=r"(s\d)_").write(root / "m.parquet")
    manifest = Manifest.read(root / "m.parquet")
    elsewhere(manifest, root / "other.parquet", labels={"sadness": "fear"})
    run(root, "before", "speaker")
    return root


def request(folder, split, *, manifest="m.parquet", init=None, n_seeds=1, overrides=QUICK):
    return TrainRequest(
        "mfcc",
        split,
        manifest=folder / manifest,
        split_options=SplitOptions(n_folds=3 if split == "kfold" else None),
        overrides=overrides,
        n_seeds=n_seeds,
        init=None if init is None else folder / init,
    )


def run(folder, name, split, *, listeners=None, resume=False, **kwargs):
    return run_experiment(
        request(folder, split, **kwargs).resolve(),
        folder / name,
        store_root=folder / "store",
        listeners=listeners,
        resume=resume,
    )


def best(folder):
    return Checkpoint.read(next(folder.glob("best_model_*.pth")))


def test_every_fold_and_seed_starts_there_and_says_so(folder):
    kwargs = {"manifest": "other.parquet", "n_seeds": 2}
    after = run(folder, "every", "kfold", init="before", **kwargs)
    before = best(folder / "before")
    assert len(after.results.outcomes) == 6
    for outcome in after.results.outcomes:
        part = folder / "every" / "parts" / outcome.member.name
        made, log = best(part), (part / "train.log").read_text(encoding="utf-8")
        for name in ("standardizer.mean", "standardizer.scale"):
            torch.testing.assert_close(made.state[name], before.state[name])
        assert "outputs kept for angry, neutral, new for fear; standardisation kept" in log
        assert made.origin["init"]["corpus"] == before.origin["corpus"] == ["tones"]
        assert made.origin["init"]["split_hash"] == before.origin["split"]["hash"]
    described = json.loads((folder / "every" / "run.json").read_text(encoding="utf-8"))
    assert described["experiment"]["init"]["model"] == "before"
    (note,) = [each for each in after.metrics["notes"] if each.startswith("Training started")]
    assert "its outputs for angry, neutral." in note
    card = (folder / "every" / "README.md").read_text(encoding="utf-8")
    assert "a model of tones (speaker, split" in card
    ((_, language),) = load_phrases("ko").notes([note])
    assert language == "", "not translated"


def test_a_start_is_worth_epochs(folder):
    """One epoch after sixty, at the rate of one, on the same sound."""
    long = (*QUICK[1:], "train.epochs=60")
    run(folder, "long", "speaker", overrides=long)
    short = (*QUICK[1:], "train.epochs=1", "train.learning_rate=1e-4")
    same = elsewhere(Manifest.read(folder / "m.parquet"), folder / "same.parquet").name
    after = run(folder, "worth", "speaker", manifest=same, init="long", overrides=short)
    anew = run(folder, "anew", "speaker", manifest=same, overrides=short)
    assert after.metrics["nll"] < anew.metrics["nll"] - 0.1


def test_a_killed_training_resumes_to_the_same_bits(folder):
    kwargs = {"manifest": "other.parquet", "init": "before"}
    run(folder, "whole", "kfold", **kwargs)
    n_epochs = 0

    def kill(_member, _record):
        nonlocal n_epochs
        n_epochs += 1
        if n_epochs == 5:  # in the second of three folds
            raise KilledError

    with pytest.raises(KilledError):
        run(folder, "killed", "kfold", listeners=Listeners(on_epoch=kill), **kwargs)
    run(folder, "killed", "kfold", resume=True, **kwargs)
    for fold in range(3):
        place = f"parts/seed42-fold{fold:02d}/best_model_mfcc.pth"
        assert (folder / "killed" / place).read_bytes() == (folder / "whole" / place).read_bytes()


def test_a_run_with_another_start_is_another_run(folder):
    run(folder, "another", "speaker", manifest="other.parquet", init="before")
    (folder / "another" / "report.html").unlink()
    with pytest.raises(RunError, match=r"holds another run \(different: init\)"):
        run(folder, "another", "speaker", manifest="other.parquet", resume=True)


def test_a_start_that_has_learnt_from_the_test_part_is_refused(folder):
    with pytest.raises(SplitError, match=r"before has learnt from \d+ utterances of the test part"):
        request(folder, "kfold", init="before").resolve()
    request(folder, "speaker", init="before").resolve()  # the same split: nothing of its test part


def test_a_start_that_was_trained_with_enrolment_is_refused_for_that(folder):
    enrolled = (*QUICK, "enrolment.k=1", "enrolment.pool=2")
    run(folder, "enrolled", "speaker", overrides=enrolled)
    for now in (QUICK, enrolled):
        kwargs = {"manifest": "other.parquet", "init": "enrolled", "overrides": now}
        with pytest.raises(ConfigError, match="enrolled was trained with enrolment"):
            run(folder, "after", "speaker", **kwargs)
        assert not (folder / "after").exists()


def test_speakers_are_kept_apart_where_the_split_does(folder):
    # What was learnt from are half of the utterances of all six speakers.
    manifest = Manifest.read(folder / "m.parquet")
    first = manifest.table["id"].str.contains("_0")
    parts = first.replace_strict({True: "train", False: "left_out"}, return_dtype=pl.String)
    listed = pl.DataFrame({"id": manifest.table["id"], "part": parts})
    tested = (listed["id"] == listed["id"][int(np.flatnonzero(~first)[0])]).to_numpy()
    listed = listed.with_columns(
        pl.when(pl.Series(tested)).then(pl.lit("test")).otherwise("part").alias("part")
    )
    listed.write_csv(folder / "list.csv")
    run(folder, "half", f"fixed:{folder / 'list.csv'}")
    with pytest.raises(SplitError, match="has learnt from"):
        request(folder, "speaker", init="half").resolve()
    # Of the model alone the speakers are still known, and the utterances are not.
    shutil.copy(next((folder / "half").glob("*.pth")), folder / "alone.pth")
    with pytest.raises(SplitError, match=r"has learnt from \d speakers of the test part \(s"):
        request(folder, "speaker", init="alone.pth").resolve()


def test_what_cannot_be_told_is_warned_of(folder, caplog):
    shutil.copy(next((folder / "before").glob("*.pth")), folder / "alone.pth")
    with caplog.at_level(logging.WARNING, "koser"):
        request(folder, "random", init="alone.pth").resolve()
    assert "was trained on tones too, and it cannot be told on which utterances" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "koser"):
        request(folder, "random", manifest="other.parquet", init="alone.pth").resolve()
    assert not caplog.text


def test_a_chain_of_starts_remembers_the_first_ones_speakers(folder):
    elsewhere(Manifest.read(folder / "m.parquet"), folder / "third.parquet", corpus="third")
    run(folder, "second", "speaker", manifest="other.parquet", init="before")
    learnt = [set(best(folder / name).origin["learnt_speakers"]) for name in ("before", "second")]
    assert learnt[0] < learnt[1]
    request(folder, "kfold", manifest="third.parquet", init="second").resolve()
    with pytest.raises(SplitError, match=r"has learnt from \d speakers of the test part"):
        request(folder, "kfold", init="second").resolve()


def test_a_speakers_hash_is_of_the_corpus_too_and_the_same_among_others(folder):
    manifest = Manifest.read(folder / "m.parquet")
    alone = speaker_keys(manifest)
    table = manifest.table.with_columns(("tones/" + pl.col("speaker")).alias("speaker"))
    assert speaker_keys(Manifest(table, manifest.provenance)) == alone
    other = speaker_keys(Manifest.read(folder / "other.parquet"))
    assert len(set(alone)) == len(set(other)) == 6
    assert not set(alone) & set(other)
