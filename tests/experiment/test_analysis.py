"""What metrics.json says beside the scores, from answers made by hand and from a run."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy.special

from fixtures.manifests import manifest
from koser.data.corpora.folder import prepare
from koser.evaluation import temperature
from koser.evaluation.agreement import fleiss_kappa
from koser.evaluation.calibration import (
    apply_temperature,
    expected_calibration_error,
    negative_log_likelihood,
)
from koser.evaluation.temperature import fit_temperature
from koser.experiment.calibrating import ValPart
from koser.experiment.cost import Memory
from koser.experiment.members import Member, Outcome
from koser.experiment.request import TrainRequest
from koser.experiment.results import collect, metrics_json
from koser.experiment.run import run_experiment
from koser.models.checkpoint import Checkpoint
from koser.systems import system_class
from koser.systems.system import Part
from koser.training.progress import Epoch, Fit

LABELS = ("angry", "neutral", "sadness")
N_SPEAKERS, N_EACH = 12, 20
QUICK = ("train.epochs=2", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")


class NoSplit:
    """Stands for a split that shares nothing; only its description is asked for."""

    def describe(self):
        return {"protocol": "speaker", "hash": "0"}

    def leakage(self, manifest):
        return []


def rows(seed=0, **more):
    rng = np.random.default_rng(seed)
    for i in range(N_SPEAKERS * N_EACH):
        speaker = i // N_EACH
        yield {
            "label": LABELS[rng.integers(3)],
            "speaker": f"S{speaker:02}",
            "gender": ("female", "male")[speaker % 2],
            "age": 20 + 7 * (speaker % 3),
            "duration": float(rng.uniform(1, 12)),
            **{key: make(i) for key, make in more.items()},
        }


def outcome(table, seed, *, fold=0, n_folds=1, sharpness=4.0, n_val=200):
    """A training whose probabilities are far too sure."""
    rng = np.random.default_rng(seed)
    ids = np.array([LABELS.index(label) for label in table.table["label"]])
    logits = rng.normal(size=(len(ids), 3))
    logits[np.arange(len(ids)), ids] += 1.2
    probabilities = scipy.special.softmax(sharpness * logits, axis=1)
    test = np.arange(len(ids))[np.arange(len(ids)) // N_EACH % n_folds == fold]
    val = rng.permutation(len(ids))[:n_val]
    epoch = Epoch(1, 0.1, 1.0, 0.5, 1.0, 0.5, 0.5, 1.0)
    return Outcome(
        Member(fold, Part(np.arange(len(ids)), val, test, seed)),
        Fit((epoch,), 1),
        probabilities[test],
        1.0,
        1.0,
        Memory(1.0, None),
        ValPart.of(ids[val], probabilities[val]),
    )


def analysed(table, outcomes):
    results = collect(table, outcomes)
    written = json.dumps(metrics_json(results, table, NoSplit()), allow_nan=False)
    return results, json.loads(written)


def columns(results):
    return results.predictions.select(pl.col("^p_.*$")).to_numpy()


def test_probabilities_are_kept_after_the_temperature_and_scored_before_and_after():
    table = manifest(list(rows()))
    made = outcome(table, 1)
    results, metrics = analysed(table, [made])
    value = made.val.temperature.value
    assert value > 2  # they were four times too sure of logits that were not
    np.testing.assert_array_equal(columns(results), apply_temperature(made.probabilities, value))
    y_true, calibration = results.predictions["label"].to_numpy(), metrics["calibration"]
    for probabilities, part in ((made.probabilities, "before"), (columns(results), "after")):
        for name, score in (
            ("nll", negative_log_likelihood),
            ("ece", expected_calibration_error),
        ):
            expected = score(y_true, probabilities, labels=LABELS)
            assert calibration[part][name] == pytest.approx(expected)
            low, high = calibration[part]["ci95"][name]
            assert low < expected < high
    assert calibration["after"]["nll"] < calibration["before"]["nll"]
    assert (metrics["nll"], metrics["ece"]) == (
        calibration["after"]["nll"],
        calibration["after"]["ece"],
    )
    assert calibration["temperature"] == {"mean": value, "min": value, "max": value}
    assert (calibration["n_fitted"], calibration["notes"]) == (1, [])
    assert sum(each["n"] for each in calibration["reliability"]) == 240
    best = np.array(LABELS)[made.probabilities.argmax(axis=1)]
    assert results.predictions["predicted"].to_list() == best.tolist()


def test_without_enough_of_a_val_part_the_temperature_is_one_and_a_note_says_so():
    table = manifest(list(rows()))
    without = outcome(table, 1, fold=1, n_folds=2, n_val=0)
    results, metrics = analysed(table, [outcome(table, 1, n_folds=2), without])
    calibration = metrics["calibration"]
    assert (calibration["n_fitted"], calibration["n_trainings"]) == (1, 2)
    assert calibration["temperature"]["min"] == 1 == metrics["folds"][1]["temperature"]
    assert calibration["notes"] == [
        "Probabilities of 1 of 2 trainings are as the network gives them, temperature 1: "
        "0 val utterances are fewer than 50."
    ]
    np.testing.assert_array_equal(columns(results)[120:], without.probabilities)
    # A training without thresholds leaves the whole without them.
    assert {each["threshold"] for each in metrics["selective"]["thresholds"]} == {None}
    assert metrics["selective"]["thresholds"][0]["n_without"] == 1


def test_a_temperature_at_the_end_of_its_range_is_announced():
    table = manifest(list(rows()))
    made = outcome(table, 1)
    ids = np.array([LABELS.index(label) for label in table.table["label"]])
    # Sure, and of the wrong label three times out of four.
    wrong = np.eye(3)[np.where(np.arange(240) % 4 == 0, ids, (ids + 1) % 3)] * 0.97 + 0.01
    made = replace(made, val=ValPart.of(ids, wrong))
    _, metrics = analysed(table, [made])
    assert metrics["calibration"]["temperature"]["max"] == 20
    assert metrics["calibration"]["notes"] == [
        "The temperature is at the end of its range, 20: on val the best probabilities are as "
        "unsure as it goes."
    ]


def test_every_training_answers_above_its_own_threshold_on_its_own_test_part():
    table = manifest(list(rows()))
    made = [outcome(table, 1, fold=fold, n_folds=2, sharpness=2 + 4 * fold) for fold in (0, 1)]
    results, metrics = analysed(table, made)
    confidences = columns(results).max(axis=1)
    is_right = (results.predictions["label"] == results.predictions["predicted"]).to_numpy()
    for place, written in enumerate(metrics["selective"]["thresholds"]):
        values = [each.val.thresholds[place].value for each in made]
        if None in values:
            assert written["threshold"] is None
            continue
        is_answered = confidences >= np.repeat(values, [120, 120])
        assert written["threshold"]["min"] == min(values)
        assert written["coverage"] == pytest.approx(is_answered.mean())
        assert written["accuracy"] == pytest.approx(is_right[is_answered].mean())
        assert written["ci95"]["accuracy"][0] < written["accuracy"]
    assert metrics["selective"]["thresholds"][3]["coverage"] == pytest.approx(0.5, abs=0.12)
    assert metrics["selective"]["curve"][-1] == {
        "coverage": 1.0,
        "risk": pytest.approx(1 - metrics["accuracy"]),
    }


def test_subgroups_are_by_every_column_with_several_values():
    table = manifest(list(rows(release=lambda i: "one", session=lambda i: f"s{i}")))
    _, metrics = analysed(table, [outcome(table, 1)])
    tables = metrics["subgroups"]
    assert set(tables) == {"gender", "age", "duration", "session", "speaker"}
    assert [each["name"] for each in tables["age"]["groups"]] == ["20s", "30s"]
    names = [each["name"] for each in tables["duration"]["groups"]]
    assert names == ["up to 2 s", "2 to 4 s", "4 to 6 s", "6 to 10 s", "over 10 s"]
    in_band = table.table.filter(pl.col("duration").is_between(2, 4, closed="right")).height
    assert tables["duration"]["groups"][1]["n"] == in_band
    assert tables["gender"]["gap"]["uar"]["n_pairs"] == 1
    assert tables["session"] == {
        "groups": [],
        "gap": {"uar": None, "accuracy": None},
        "n_unknown": 0,
        "notes": ["240 values are too many for a table."],
    }
    assert len(tables["speaker"]["groups"]) == N_SPEAKERS
    assert sum(each["n"] for each in tables["speaker"]["groups"]) == 240


def test_the_scripted_situation_is_a_column_unless_it_is_the_label():
    rng = np.random.default_rng(5)
    mixed = manifest(list(rows(situation=lambda i: LABELS[rng.integers(2)])))
    _, metrics = analysed(mixed, [outcome(mixed, 1)])
    assert len(metrics["subgroups"]["situation"]["groups"]) == 2
    scripted = manifest([{**row, "situation": row["label"]} for row in rows()])
    _, metrics = analysed(scripted, [outcome(scripted, 1)])
    assert "situation" not in metrics["subgroups"]


def test_raters_are_scored_on_the_tested_utterances_where_the_manifest_keeps_votes():
    rng = np.random.default_rng(3)

    def votes(i):
        heard = rng.choice([*LABELS, "fear"], size=rng.integers(0, 6), p=[0.5, 0.2, 0.2, 0.1])
        return [{"label": label, "intensity": 1} for label in heard] or None

    table = manifest(list(rows(votes=votes)))
    _, metrics = analysed(table, [outcome(table, 1, n_folds=2), outcome(table, 2, n_folds=2)])
    tested = table.table.filter(pl.col("speaker").str.tail(1).cast(int) % 2 == 0)
    counts = np.array(
        [
            [sum(vote["label"] == label for vote in row or []) for label in (*LABELS, "fear")]
            for row in tested["votes"].to_list()
        ]
    )
    raters = metrics["raters"]
    assert raters["n_votes"] == counts.sum()  # two seeds do not count votes twice
    assert raters["agreement"]["fleiss_kappa"] == pytest.approx(fleiss_kappa(counts))
    assert raters["agreement"]["n"] == (counts.sum(axis=1) > 1).sum()
    own = [row[LABELS.index(label)] for row, label in zip(counts, tested["label"], strict=True)]
    assert raters["against_label"]["accuracy"] == pytest.approx(np.sum(own) / counts.sum())
    assert raters["against_others"]["n_votes"] + raters["n_tied"] == counts.sum()
    assert raters["label_policy"] == "given"


def test_without_votes_there_is_nothing_on_raters_and_without_speakers_no_interval():
    table = manifest(list(rows()), grouping=None)
    _, metrics = analysed(table, [outcome(table, 1)])
    assert metrics["raters"] is None
    assert metrics["calibration"]["before"]["ci95"]["nll"] is None
    assert metrics["subgroups"]["gender"]["gap"] == {"uar": None, "accuracy": None}
    assert metrics["selective"]["thresholds"][0]["ci95"]["accuracy"] is None


def test_folds_have_a_mean_and_a_deviation_and_those_without_a_label_are_counted_out():
    def label(i):
        return LABELS[i % 2] if i // N_EACH % 3 == 1 else LABELS[i % 3]

    table = manifest(list(rows(label=label)))
    made = [outcome(table, seed, fold=f, n_folds=3) for seed in (1, 2) for f in range(3)]
    results, metrics = analysed(table, made)
    over, by_name = metrics["over_folds"], results.folds
    accuracies = [
        np.mean([by_name[f"seed{seed}-fold{fold:02}"].accuracy for seed in (1, 2)])
        for fold in range(3)
    ]
    assert over["n_folds"] == 3
    assert over["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert over["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert over["uar"]["n"] == 2  # the fold of speakers without sadness has none
    assert metrics["folds"][1]["uar"] is None
    assert metrics["over_seeds"]["uar"]["sd"] > 0


def test_a_run_keeps_the_temperature_of_its_val_part_in_its_checkpoint(
    tone_corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(temperature, "MIN_UTTERANCES", 5)
    monkeypatch.setattr(temperature, "MIN_OF_EACH", 1)
    prepare(tone_corpus(), speaker_pattern=r"(s\d)_").write(tmp_path / "m.parquet")
    request = TrainRequest("mfcc", "speaker", manifest=tmp_path / "m.parquet", overrides=QUICK)
    experiment = request.resolve()
    run = run_experiment(experiment, tmp_path / "run", store_root=tmp_path / "store")
    (made,) = run.results.outcomes
    checkpoint = Checkpoint.read(run.folder / "best_model_mfcc.pth")
    system = system_class("mfcc").from_checkpoint(checkpoint)
    data = system.extract(
        experiment.manifest,
        experiment.config,
        train_rows=made.member.part.train,
        store_root=tmp_path / "store",
    )
    raw = system.predict_rows(data, made.member.part.val)
    labels = experiment.manifest.table["label"].to_list()
    ids = np.array([LABELS.index(labels[row]) for row in made.member.part.val])
    assert checkpoint.temperature == pytest.approx(fit_temperature(ids, raw), rel=1e-6)
    assert checkpoint.temperature != 1
    assert checkpoint.origin["calibration"]["temperature"]["n_utterances"] == len(ids)
    assert run.metrics["folds"][0]["temperature"] == checkpoint.temperature
    # What was finished is read back, not trained again, with the same calibration.
    (run.folder / "report.html").unlink()
    again = run_experiment(experiment, run.folder, store_root=tmp_path / "store", resume=True)
    assert again.metrics["calibration"] == run.metrics["calibration"]
    assert again.metrics["selective"] == run.metrics["selective"]
