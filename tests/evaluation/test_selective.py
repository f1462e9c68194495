"""Risk and coverage against a plain loop, thresholds, and what they give elsewhere."""

import numpy as np
import pytest

from koser.errors import ConfigError, UndefinedMetricError
from koser.evaluation.answers import score_answers
from koser.evaluation.selective import (
    COVERAGES,
    RISKS,
    choose_thresholds,
    evaluate_selection,
    risk_coverage,
    threshold_for_coverage,
    threshold_for_risk,
)


def draw(seed, n_answers=200, digits=6):
    rng = np.random.default_rng(seed)
    confidences = rng.random(n_answers).round(digits)
    return confidences, rng.random(n_answers) < 0.2 + 0.7 * confidences


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_and_its_area_agree_with_a_plain_loop(seed):
    confidences, is_right = draw(seed)
    curve = risk_coverage(confidences, is_right)
    order = (-confidences).argsort()
    risks = [np.mean(~is_right[order[:n]]) for n in range(1, 201)]
    np.testing.assert_allclose(curve.risk, risks, atol=1e-12)
    np.testing.assert_allclose(curve.coverage, np.arange(1, 201) / 200)
    np.testing.assert_array_equal(curve.threshold, confidences[order])
    assert curve.aurc == pytest.approx(np.mean(risks))


def test_the_area_of_ties_is_its_mean_over_all_their_orders():
    confidences, is_right = draw(5, n_answers=30, digits=1)
    rng, areas = np.random.default_rng(0), []
    for _ in range(4000):
        order = np.lexsort([rng.random(30), -confidences])
        wrong = np.cumsum(~is_right[order])
        areas.append(np.mean(wrong / np.arange(1, 31)))
    # 4,000 orders know it to 0.0005.
    assert risk_coverage(confidences, is_right).aurc == pytest.approx(np.mean(areas), abs=0.002)


def test_useless_confidences_have_the_error_rate_and_perfect_ones_the_best_area():
    _, is_right = draw(1)
    equal = risk_coverage(np.full(200, 0.5), is_right)
    assert equal.aurc == pytest.approx(equal.aurc_chance)
    assert equal.aurc_chance == pytest.approx(np.mean(~is_right))
    assert (equal.coverage.tolist(), equal.threshold.tolist()) == ([1.0], [0.5])
    perfect = risk_coverage(is_right + np.linspace(0, 0.1, 200), is_right)
    assert perfect.aurc == pytest.approx(perfect.aurc_best)
    assert 0 < perfect.aurc_best < equal.aurc_chance


def test_the_order_of_rows_changes_nothing():
    confidences, is_right = draw(2, digits=1)
    order = np.random.default_rng(0).permutation(200)
    one, other = risk_coverage(confidences, is_right), risk_coverage(confidences[order],
                                                                     is_right[order])  # fmt: skip
    assert one.aurc == other.aurc
    np.testing.assert_array_equal(one.risk, other.risk)


def test_the_risk_at_a_coverage_answers_at_least_that_many():
    curve = risk_coverage([0.9, 0.8, 0.8, 0.1], [True, True, False, False])
    assert [curve.risk_at(c) for c in (0.25, 0.26, 0.75, 1.0)] == pytest.approx(
        [0, 1 / 3, 1 / 3, 0.5]
    )


@pytest.mark.parametrize("digits", [2, 6])
@pytest.mark.parametrize("coverage", [0.01, 0.3, 0.333, 0.5, 0.9931, 1.0])
def test_a_threshold_for_a_coverage_is_the_highest_that_reaches_it(coverage, digits):
    confidences, _ = draw(3, digits=digits)
    threshold = threshold_for_coverage(confidences, coverage)
    assert np.mean(confidences >= threshold) >= coverage
    higher = confidences[confidences > threshold]
    assert not higher.size or np.mean(confidences >= higher.min()) < coverage


@pytest.mark.parametrize("risk", [0.15, 0.2, 0.4])
def test_a_threshold_for_a_risk_is_the_lowest_that_keeps_it(risk):
    confidences, is_right = draw(4, n_answers=400, digits=2)
    threshold = threshold_for_risk(confidences, is_right, risk)
    assert np.mean(~is_right[confidences >= threshold]) <= risk
    for lower in np.unique(confidences[confidences < threshold]):
        assert np.mean(~is_right[confidences >= lower]) > risk


def test_a_risk_that_only_a_handful_reaches_has_no_threshold():
    confidences = np.linspace(0, 1, 100)
    is_right = confidences > 0.8  # 20 right ones; of 30 answers at least a third is wrong
    assert threshold_for_risk(confidences, is_right, 0.05) is None
    assert threshold_for_risk(confidences, is_right, 0.4) == pytest.approx(confidences[67])


def test_a_threshold_is_chosen_for_every_aim_or_none_where_there_is_too_little():
    confidences, is_right = draw(6)
    chosen = choose_thresholds(confidences, is_right)
    wanted = [("coverage", c) for c in COVERAGES] + [("risk", r) for r in RISKS]
    assert [(each.aim, each.wanted) for each in chosen] == wanted
    assert chosen[1].value == threshold_for_coverage(confidences, COVERAGES[1])
    assert chosen[-1].value == threshold_for_risk(confidences, is_right, RISKS[-1])
    for few in (confidences[:29], confidences[:0]):
        assert {each.value for each in choose_thresholds(few, is_right[: len(few)])} == {None}


def test_a_selection_is_the_accuracy_of_what_is_answered_with_its_interval():
    confidences, is_right = draw(7)
    speakers = np.arange(200) % 10
    is_answered = confidences >= 0.4
    found = evaluate_selection(is_answered, is_right, clusters=speakers)
    labels = np.where(is_right, "angry", "neutral")
    alone = score_answers(
        np.full(is_answered.sum(), "angry"),
        labels[is_answered],
        labels=["angry", "neutral"],
        clusters=speakers[is_answered],
    ).scores["accuracy"]
    assert [found.accuracy.value, *found.accuracy.bounds] == pytest.approx(
        [alone.value, *alone.bounds]
    )
    assert found.coverage.value == is_answered.mean()
    assert found.coverage.low < found.coverage.value < found.coverage.high
    assert (found.n_answered, found.n_answers) == (is_answered.sum(), 200)


def test_nothing_answered_has_no_accuracy():
    found = evaluate_selection(np.zeros(20, bool), np.ones(20, bool), clusters=np.arange(20) % 4)
    assert (found.accuracy.value, found.accuracy.bounds) == (None, None)
    assert found.coverage.value == 0
    assert found.coverage.high > 0
    assert evaluate_selection([True], [True]).coverage.bounds is None


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: risk_coverage([], []), UndefinedMetricError, "at least one utterance"),
        (lambda: risk_coverage([0.5], [True, False]), UndefinedMetricError, "of each"),
        (lambda: risk_coverage([np.nan], [True]), UndefinedMetricError, "1 of 1 .* not finite"),
        (lambda: threshold_for_coverage([0.5], 0), ConfigError, "coverage = 0"),
        (lambda: threshold_for_risk([0.5], [True], 1), ConfigError, "risk = 1"),
    ],
)
def test_what_cannot_be_computed_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
