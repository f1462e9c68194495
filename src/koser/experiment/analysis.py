"""What stands in ``metrics.json`` beside the scores: calibration, confidence, subgroups, raters.

Each part is what `koser.evaluation` computes; here it is decided on which columns and
utterances, and with what of the val part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from koser.data.manifest import Manifest
from koser.evaluation.reliability import reliability_bins
from koser.evaluation.scoring import Evaluation, Score, evaluate
from koser.evaluation.selective import Threshold, evaluate_selection, risk_coverage
from koser.evaluation.subgroups import Answered, evaluate_subgroups
from koser.evaluation.temperature import TEMPERATURE_RANGE, Temperature
from koser.experiment.against_votes import score_against_votes, score_raters

CALIBRATION_SCORES = ("nll", "ece", "adaptive_ece")
# Columns of the manifest that subgroups are by, beside `age` and `duration` in bands.
COLUMNS = ("gender", "group", "release", "session", "situation", "corpus", "language", "speaker")
DURATION_BANDS = {  # upper ends in seconds
    "up to 2 s": 2.0,
    "2 to 4 s": 4.0,
    "4 to 6 s": 6.0,
    "6 to 10 s": 10.0,
    "over 10 s": np.inf,
}
MAX_SUBGROUPS = 64  # the groups of AI Hub are 59
CURVE_COVERAGES = tuple(np.linspace(0.05, 1.0, 20).round(2).tolist())

Json = dict[str, Any]  # Any: what JSON can hold


@dataclass(frozen=True)
class Chosen:
    """What one training's val part chose, and on how many utterances that is tested.

    Attributes
    ----------
    temperature : Temperature
        Fitted on val.
    thresholds : tuple[Threshold, ...]
        For answering only when sure; the same aims in every training.
    n_tested : int
        Rows of this training.
    """

    temperature: Temperature
    thresholds: tuple[Threshold, ...]
    n_tested: int

    @classmethod
    def by(cls, origin: Mapping[str, Any], n_tested: int) -> Chosen:
        """What a kept model's training chose.

        Parameters
        ----------
        origin : Mapping
            Of its checkpoint.
        n_tested : int
            Rows that it is tested on now.
        """
        known = origin.get("calibration")
        if known is None:  # a checkpoint of koser 0.1
            return cls(Temperature(1.0, 0, "its checkpoint tells of no other"), (), n_tested)
        thresholds = tuple(Threshold(**each) for each in known["thresholds"])
        return cls(Temperature(**known["temperature"]), thresholds, n_tested)


@dataclass(frozen=True, eq=False)
class Tested:
    """All answers of an experiment, a row per utterance and seed.

    Attributes
    ----------
    manifest : Manifest
        The utterances.
    predictions : pl.DataFrame
        With ``id``, ``label`` and ``predicted``.
    raw, calibrated : np.ndarray [shape=(n_rows, n_labels)]
        Probabilities before and after the temperature.
    clusters : np.ndarray or None [shape=(n_rows,)]
        What stands for the speaker.
    trainings : Sequence[Chosen]
        What each training chose, in the order of their rows.
    prior : np.ndarray, optional [shape=(n_rows, n_labels)]
        Mean of the raters' distributions in each row's train part, where there are votes.
    """

    manifest: Manifest
    predictions: pl.DataFrame
    raw: np.ndarray
    calibrated: np.ndarray
    clusters: np.ndarray | None
    trainings: Sequence[Chosen]
    prior: np.ndarray | None = None

    @property
    def y_true(self) -> np.ndarray:
        """Reference labels."""
        return self.predictions["label"].to_numpy()

    @property
    def is_right(self) -> np.ndarray:
        """Whether each answer is right."""
        return (self.predictions["label"] == self.predictions["predicted"]).to_numpy()

    @property
    def cluster_kind(self) -> str | None:
        """What a cluster is."""
        return self.manifest.provenance.grouping


def analyse(tested: Tested, evaluation: Evaluation) -> Json:
    """Everything beside the scores.

    Parameters
    ----------
    tested : Tested
        All answers.
    evaluation : Evaluation
        Of the calibrated probabilities.

    Returns
    -------
    dict
        ``calibration``, ``selective``, ``subgroups``, ``raters`` and ``votes``, as JSON
        values; the last two are None where the manifest keeps no votes.
    """
    return {
        "calibration": _calibration(tested, evaluation),
        "selective": _selective(tested),
        "subgroups": _subgroups(tested),
        "raters": score_raters(tested.manifest, tested.predictions, clusters=tested.clusters),
        "votes": score_against_votes(
            tested.manifest,
            tested.predictions,
            tested.calibrated,
            clusters=tested.clusters,
            prior=tested.prior,
        ),
    }


def _calibration(tested: Tested, evaluation: Evaluation) -> Json:
    labels = tested.manifest.labels
    before = evaluate(
        tested.y_true,
        tested.raw,
        labels=labels,
        clusters=tested.clusters,
        cluster_kind=tested.cluster_kind,
    )
    bins = {
        name: reliability_bins(
            tested.y_true, probabilities, labels=labels, clusters=tested.clusters
        )
        for name, probabilities in (("before", tested.raw), ("after", tested.calibrated))
    }
    fitted = [each.temperature for each in tested.trainings]
    values = [each.value for each in fitted]
    return {
        "fitted_on": "val",
        "temperature": {"mean": float(np.mean(values)), "min": min(values), "max": max(values)},
        "n_fitted": sum(not each.reason for each in fitted),
        "n_trainings": len(fitted),
        "before": _named(before.scores),
        "after": _named(evaluation.scores),
        "reliability_before": [each.to_dict() for each in bins["before"]],
        "reliability": [each.to_dict() for each in bins["after"]],
        "notes": _temperature_notes(fitted),
    }


def _named(scores: dict[str, Score]) -> Json:
    return {
        **{name: scores[name].value for name in CALIBRATION_SCORES},
        "ci95": {name: scores[name].bounds for name in CALIBRATION_SCORES},
    }


def _temperature_notes(fitted: Sequence[Temperature]) -> list[str]:
    def share(count: int) -> str:
        return "" if len(fitted) == 1 else f" of {count} of {len(fitted)} trainings"

    notes = []
    reasons = [each.reason for each in fitted if each.reason]
    if reasons:
        notes.append(
            f"Probabilities{share(len(reasons))} are as the network gives them, temperature 1: "
            f"{reasons[0]}."
        )
    for end, what in zip(TEMPERATURE_RANGE, ("as sure", "as unsure"), strict=True):
        n_there = sum(each.value == end for each in fitted)
        if n_there:
            notes.append(
                f"The temperature{share(n_there)} is at the end of its range, {end:g}: on val the "
                f"best probabilities are {what} as it goes."
            )
    return notes


def _selective(tested: Tested) -> Json:
    confidences = tested.calibrated.max(axis=1)
    curve = risk_coverage(confidences, tested.is_right)
    n_tested = [each.n_tested for each in tested.trainings]
    chosen = [each.thresholds for each in tested.trainings]
    return {
        "aurc": curve.aurc,
        "aurc_best": curve.aurc_best,
        "aurc_chance": curve.aurc_chance,
        "curve": [
            {"coverage": coverage, "risk": curve.risk_at(coverage)} for coverage in CURVE_COVERAGES
        ],
        "chosen_on": "val",
        "thresholds": [
            {
                "aim": same[0].aim,
                "wanted": same[0].wanted,
                **_selection(tested, confidences, [each.value for each in same], n_tested),
            }
            for same in zip(*chosen, strict=True)
        ],
    }


def _selection(
    tested: Tested, confidences: np.ndarray, values: list[float | None], n_tested: list[int]
) -> Json:
    """What every training's own threshold gives on its own test part."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"threshold": None, "n_without": len(values) - len(known)}
    is_answered = confidences >= np.repeat(known, n_tested)
    found = evaluate_selection(is_answered, tested.is_right, clusters=tested.clusters)
    return {
        "threshold": {"mean": float(np.mean(known)), "min": min(known), "max": max(known)},
        "n_without": 0,
        "coverage": found.coverage.value,
        "accuracy": found.accuracy.value,
        "ci95": {"coverage": found.coverage.bounds, "accuracy": found.accuracy.bounds},
    }


def _subgroups(tested: Tested) -> Json:
    """A table for every column with two values or more among the tested utterances."""
    predictions = tested.predictions
    answered = Answered(
        predictions["id"].to_numpy(),
        tested.y_true,
        predictions["predicted"].to_numpy(),
        tested.clusters,
    )
    of_id = _bands(tested.manifest.table)
    values = predictions.select("id").join(of_id, on="id", how="left", maintain_order="left")
    tables: Json = {}
    for column in of_id.columns[1:]:
        if column == "situation" and (values[column] == predictions["label"]).all():
            continue  # the label itself: those are the recalls
        n_values = values[column].drop_nulls().n_unique()
        if n_values > MAX_SUBGROUPS:
            tables[column] = {
                "groups": [],
                "gap": {"uar": None, "accuracy": None},
                "n_unknown": 0,
                "notes": [f"{n_values} values are too many for a table."],
            }
        elif n_values > 1:
            tables[column] = evaluate_subgroups(
                answered,
                values[column].to_numpy(),
                column=column,
                labels=tested.manifest.labels,
                cluster_kind=tested.cluster_kind,
                order=tuple(DURATION_BANDS) if column == "duration" else None,
            ).to_dict()
    return tables


def _bands(table: pl.DataFrame) -> pl.DataFrame:
    """What subgroups are by, for every id; ages in decades, durations in `DURATION_BANDS`."""
    decade = (pl.col("age") // 10 * 10).cast(pl.String) + "s"
    bands = np.searchsorted(list(DURATION_BANDS.values()), table["duration"].to_numpy())
    return table.select(
        "id",
        "gender",
        decade.alias("age"),
        pl.Series("duration", np.array(list(DURATION_BANDS))[bands]),
        *COLUMNS[1:],
    )
