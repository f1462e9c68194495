"""Scores over folds and seeds."""

import statistics

import numpy as np
import pytest

from koser.errors import UndefinedMetricError
from koser.evaluation.folds import FoldScore, MeanAndSd, mean_and_sd, summarise_folds
from koser.evaluation.scoring import evaluate

LABELS = ["angry", "neutral"]


def test_folds_are_scored_alone_and_pooled():
    y_true = ["angry", "neutral", "angry", "angry", "neutral"]
    p_angry = np.array([0.9, 0.8, 0.7, 0.4, 0.1])
    probabilities = np.column_stack([p_angry, 1 - p_angry])
    folds = ["b", "b", "a", "a", "b"]
    summary = summarise_folds(
        y_true, probabilities, labels=LABELS, folds=folds, clusters=folds, cluster_kind="speaker"
    )
    assert summary.folds == (
        FoldScore("a", 2, accuracy=0.5, uar=None),  # no "neutral" in this fold
        FoldScore("b", 3, accuracy=pytest.approx(2 / 3), uar=0.75),
    )
    alone = evaluate(y_true, probabilities, labels=LABELS, clusters=folds, cluster_kind="speaker")
    assert summary.pooled.to_dict() == alone.to_dict()


def test_a_label_that_no_fold_has_is_missed_in_none():
    y_true = ["angry", "neutral", "angry", "neutral", "angry"]
    probabilities = np.eye(3)[[0, 1, 1, 1, 2]]  # an answer of the absent label is wrong
    summary = summarise_folds(
        y_true, probabilities, labels=[*LABELS, "surprise"], folds=["a", "a", "b", "b", "b"]
    )
    assert [fold.uar for fold in summary.folds] == [1.0, 0.5]
    assert summary.pooled.labels_absent == ("surprise",)


def test_an_utterance_without_a_fold_is_refused():
    with pytest.raises(UndefinedMetricError, match="1 of 2 utterances have no fold"):
        summarise_folds(LABELS, np.eye(2), labels=LABELS, folds=["a", None])


def test_the_deviation_over_seeds_is_that_of_a_sample():
    values = [0.61, 0.65, 0.58]
    spread = mean_and_sd(values)
    assert spread.mean == pytest.approx(statistics.mean(values))
    assert spread.sd == pytest.approx(statistics.stdev(values))
    assert spread.n == 3


def test_one_seed_has_no_deviation():
    assert mean_and_sd([0.5]) == MeanAndSd(0.5, None, 1)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_no_mean_of_nothing_or_of_what_is_not_finite(values):
    with pytest.raises(UndefinedMetricError, match="No mean of"):
        mean_and_sd(values)
