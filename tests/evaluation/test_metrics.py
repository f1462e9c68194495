"""Metrics against scikit-learn and audmetric, their properties and their refusals."""

import audmetric
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from koser.errors import KoserError, LabelError, UndefinedMetricError
from koser.evaluation import metrics
from koser.evaluation.metrics import (
    accuracy,
    confusion_matrix,
    macro_f1,
    recall_per_class,
    unweighted_average_recall,
)

LABELS = ["angry", "happiness", "neutral", "sadness"]
SCORES = [accuracy, unweighted_average_recall, macro_f1]


def draw_labels(seed, n_utterances=200):
    rng = np.random.default_rng(seed)
    return rng.choice(LABELS, size=(2, n_utterances), p=[0.1, 0.2, 0.6, 0.1])


label_pairs = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30
).map(lambda pairs: pairs + [(label, "neutral") for label in LABELS])


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_scikit_learn(seed):
    y_true, y_pred = draw_labels(seed)
    macro = {"labels": LABELS, "average": "macro"}
    assert accuracy(y_true, y_pred, labels=LABELS) == sklearn.metrics.accuracy_score(y_true, y_pred)
    assert unweighted_average_recall(y_true, y_pred, labels=LABELS) == pytest.approx(
        sklearn.metrics.recall_score(y_true, y_pred, **macro), abs=1e-12
    )
    assert macro_f1(y_true, y_pred, labels=LABELS) == pytest.approx(
        sklearn.metrics.f1_score(y_true, y_pred, **macro), abs=1e-12
    )
    expected = sklearn.metrics.confusion_matrix(y_true, y_pred, labels=LABELS)
    np.testing.assert_array_equal(confusion_matrix(y_true, y_pred, labels=LABELS), expected)


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_audmetric(seed):
    y_true, y_pred = draw_labels(seed)
    for ours, theirs in [
        (accuracy, audmetric.accuracy),
        (unweighted_average_recall, audmetric.unweighted_average_recall),
        (macro_f1, audmetric.unweighted_average_fscore),
    ]:
        expected = theirs(y_true, y_pred, labels=LABELS)
        assert ours(y_true, y_pred, labels=LABELS) == pytest.approx(expected, abs=1e-12)
    recalls = recall_per_class(y_true, y_pred, labels=LABELS)
    assert recalls == pytest.approx(audmetric.recall_per_class(y_true, y_pred, labels=LABELS))
    assert list(recalls) == LABELS


def test_predictions_outside_the_labels_count_as_errors_as_in_scikit_learn():
    # A model of four labels on a corpus of two.
    y_true, y_pred = draw_labels(0)
    few = ["happiness", "neutral"]
    is_scored = np.isin(y_true, few)
    y_true, y_pred = y_true[is_scored], y_pred[is_scored]
    macro = {"labels": few, "average": "macro"}
    assert (~np.isin(y_pred, few)).sum() > 10
    assert accuracy(y_true, y_pred, labels=few) == np.mean(y_true == y_pred)
    assert unweighted_average_recall(y_true, y_pred, labels=few) == pytest.approx(
        sklearn.metrics.recall_score(y_true, y_pred, **macro), abs=1e-12
    )
    assert macro_f1(y_true, y_pred, labels=few) == pytest.approx(
        sklearn.metrics.f1_score(y_true, y_pred, **macro), abs=1e-12
    )


def test_rows_of_the_confusion_matrix_are_references():
    matrix = confusion_matrix(["angry", "angry"], ["sadness", "sadness"], labels=LABELS)
    assert matrix[LABELS.index("angry"), LABELS.index("sadness")] == 2
    assert matrix.sum() == 2


@pytest.mark.parametrize("score", SCORES)
@given(pairs=label_pairs)
def test_a_perfect_prediction_scores_one(score, pairs):
    y_true = [reference for reference, _ in pairs]
    assert score(y_true, y_true, labels=LABELS) == 1


@pytest.mark.parametrize("score", SCORES)
@given(pairs=label_pairs, seed=st.integers(0, 1000))
def test_the_order_of_utterances_and_of_labels_changes_no_score(score, pairs, seed):
    y_true, y_pred = np.array(pairs).T
    rng = np.random.default_rng(seed)
    rows, shuffled_labels = rng.permutation(len(pairs)), rng.permutation(LABELS).tolist()
    expected = score(y_true, y_pred, labels=LABELS)
    # Only the order of a sum over classes differs.
    assert score(y_true[rows], y_pred[rows], labels=shuffled_labels) == pytest.approx(
        expected, abs=1e-15
    )


def test_uar_of_a_majority_guesser_is_chance_level():
    y_true = np.array(["neutral"] * 97 + ["angry", "happiness", "sadness"])
    y_pred = np.full(100, "neutral")
    assert unweighted_average_recall(y_true, y_pred, labels=LABELS) == pytest.approx(1 / 4)
    assert accuracy(y_true, y_pred, labels=LABELS) == pytest.approx(0.97)


def test_macro_f1_is_the_mean_of_f1_and_not_the_f1_of_means():
    y_true = ["angry", "angry", "neutral", "neutral"]
    y_pred = ["angry", "neutral", "neutral", "neutral"]
    # angry: P 1, R 1/2, F1 2/3. neutral: P 2/3, R 1, F1 4/5. F1 of the means: 0.789.
    expected = (2 / 3 + 4 / 5) / 2
    assert macro_f1(y_true, y_pred, labels=["angry", "neutral"]) == pytest.approx(expected)


def test_a_class_that_is_never_predicted_has_an_f1_of_zero():
    y_true, y_pred = ["angry", "neutral"], ["neutral", "neutral"]
    # neutral: P 1/2, R 1, F1 2/3.
    assert macro_f1(y_true, y_pred, labels=["angry", "neutral"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("score", "name"),
    [(recall_per_class, "Recall"), (unweighted_average_recall, "Recall"), (macro_f1, "F1")],
)
def test_scores_over_classes_refuse_a_class_without_reference_utterances(score, name):
    y_true, y_pred = ["angry", "neutral"], ["angry", "sadness"]
    with pytest.raises(UndefinedMetricError, match=f"{name} of 'sadness' is undefined") as caught:
        score(y_true, y_pred, labels=["angry", "neutral", "sadness"])
    assert "present: ['angry', 'neutral']" in str(caught.value)
    # The message's way out works.
    score(y_true, y_pred, labels=["angry", "neutral"])


def test_formulas_on_stacks_of_matrices_equal_those_on_each():
    stack = np.random.default_rng(0).integers(1, 9, size=(5, 4, 4))
    for formula in (
        metrics.accuracy_from_confusion,
        metrics.recalls_from_confusion,
        metrics.f1_from_confusion,
    ):
        np.testing.assert_array_equal(formula(stack), [formula(matrix) for matrix in stack])


def test_recall_and_f1_of_a_class_without_references_are_nan_even_if_it_is_predicted():
    confusion = np.array([[3, 1], [0, 0]])
    np.testing.assert_array_equal(metrics.recalls_from_confusion(confusion), [0.75, np.nan])
    np.testing.assert_array_equal(np.isnan(metrics.f1_from_confusion(confusion)), [False, True])


@pytest.mark.parametrize("score", [*SCORES, recall_per_class, confusion_matrix])
@pytest.mark.parametrize(
    ("y_true", "y_pred", "labels", "error", "match"),
    [
        (["angry"], ["angry", "angry"], ["angry"], UndefinedMetricError, "1 reference .* 2 pred"),
        ([], [], ["angry"], UndefinedMetricError, r"`y_true` has shape \(0,\)"),
        ([["angry"]], ["angry"], ["angry"], UndefinedMetricError, r"shape \(1, 1\)"),
        (["angry", "mad"], ["angry"] * 2, ["angry"], LabelError, r"1 of 2 .*'mad' \(1\)"),
        ([None, "angry"], ["angry"] * 2, ["angry"], LabelError, r"1 of 2 .*None \(1\)"),
        ([0, 1], [0, 1], ["angry", "fear"], LabelError, "`y_true` holds int64 values"),
        (["angry"], [0], ["angry"], LabelError, "`y_pred` holds int64 values"),
        (["angry"], ["angry"], ["angry", "angry"], LabelError, "must be distinct names"),
        (["angry"], ["angry"], [], LabelError, "must be distinct names"),
        (["a"], ["a"], "angry", LabelError, "must be distinct names"),
    ],
)
def test_malformed_input_is_refused_before_any_arithmetic(
    score, y_true, y_pred, labels, error, match
):
    with pytest.raises(KoserError, match=match) as caught:
        score(y_true, y_pred, labels=labels)
    assert type(caught.value) is error


def test_the_confusion_matrix_refuses_predictions_it_has_no_column_for():
    with pytest.raises(LabelError, match="1 predictions name none of the labels"):
        confusion_matrix(["angry", "fear"], ["angry", "calm"], labels=["angry", "fear"])
