from itertools import permutations

import numpy as np
import pytest
import scipy.stats

from koser.errors import UndefinedMetricError
from koser.evaluation import chance
from koser.evaluation.chance import permutation_p_value, student_t_tail, uar_above_chance


def guesses(predicted, n_labels=3):
    return np.eye(n_labels)[predicted]


def speakers(n_speakers, n_each):
    return np.repeat(np.arange(n_speakers), n_each)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 101])
@pytest.mark.parametrize("t", [-40.0, -1.3, 0.0, 0.2, 2.5, 9.0])
def test_the_tail_of_students_t_agrees_with_scipy(t, freedom):
    assert student_t_tail(t, freedom) == pytest.approx(scipy.stats.t.sf(t, freedom), abs=1e-13)


def test_the_value_is_the_mean_recall_with_ties_shared():
    labels = np.array([0, 0, 1, 1, 2, 2])
    credits = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]])
    found = uar_above_chance(labels, credits, None)
    assert found.uar.value == pytest.approx((1 / 2 + 1.5 / 2 + 0) / 3)
    assert (found.chance, found.uar.low) == (1 / 3, None)


def test_a_label_that_nobody_tests_does_not_count():
    labels = np.array([0, 0, 2, 2])
    found = uar_above_chance(labels, guesses([0, 0, 2, 1]), None)
    assert (found.uar.value, found.chance) == (0.75, 0.5)


def test_dealt_labels_agree_with_all_deals_there_are():
    labels, predicted = np.array([0, 0, 1, 0, 1, 1]), np.array([0, 1, 1, 0, 1, 0])
    clusters = speakers(2, 3)
    observed = (labels == predicted).sum()
    deals = [
        (np.concatenate([labels[list(first)], labels[3:][list(second)]]) == predicted).sum()
        for first in permutations(range(3))
        for second in permutations(range(3))
    ]
    expected = np.mean(np.array(deals) >= observed)
    p_value = permutation_p_value(labels, guesses(predicted, 2), clusters)
    assert p_value == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("n_speakers", [1, 8])
def test_the_normal_limit_agrees_with_deals(monkeypatch, n_speakers):
    monkeypatch.setattr(chance, "MAX_DEALT", 1_000)
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 480, p=[0.6, 0.3, 0.1])
    predicted = np.where(rng.random(480) < 0.06, labels, rng.integers(3, size=480))
    clusters = speakers(n_speakers, 480 // n_speakers)
    dealt = permutation_p_value(labels, guesses(predicted), clusters)
    monkeypatch.setattr(chance, "MAX_DEALT", 10)
    limit = permutation_p_value(labels, guesses(predicted), clusters)
    assert 0.001 < dealt < 0.5
    assert limit == pytest.approx(dealt, rel=0.15, abs=0.003)


@pytest.mark.parametrize("n_speakers", [2, 5, 20])
def test_without_information_one_test_in_twenty_is_below_5_percent_at_most(n_speakers, monkeypatch):
    """Speakers differ in their labels and in what is guessed of them, independently."""
    monkeypatch.setattr(chance, "N_DEALS", 399)
    rng = np.random.default_rng(n_speakers)
    p_values = []
    for _ in range(200):
        clusters = speakers(n_speakers, 20)
        labels = np.concatenate(
            [rng.choice(3, 20, p=rng.dirichlet([3, 3, 3])) for _ in range(n_speakers)]
        )
        predicted = np.concatenate(
            [rng.choice(3, 20, p=rng.dirichlet([1, 1, 1])) for _ in range(n_speakers)]
        )
        p_values.append(uar_above_chance(labels, guesses(predicted), clusters).p_value)
    # 5 % of 200 is 10; 18 or more happen once in a hundred such tests
    assert np.sum(np.array(p_values) <= 0.05) < 18


def test_what_is_known_within_two_speakers_is_seen_and_so_is_what_tells_many_speakers_apart():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=40)
    assert uar_above_chance(labels, guesses(labels), speakers(2, 20)).p_value <= 0.001
    # each speaker has one label: nothing is known within, all between
    labels = np.repeat(np.arange(30) % 3, 20)
    found = uar_above_chance(labels, guesses(labels), speakers(30, 20))
    assert found.p_value <= 0.001
    assert permutation_p_value(labels, guesses(labels), speakers(30, 20)) == 1.0


def test_a_few_speakers_that_agree_by_chance_are_no_proof():
    """16 utterances of two speakers with 3 hits of 8 each: no spread, and no evidence."""
    labels = np.tile(np.repeat(np.arange(4), 2), 2)
    predicted = np.tile([0, 1, 1, 2, 2, 3, 0, 1], 2)
    found = uar_above_chance(labels, guesses(predicted, 4), speakers(2, 8))
    assert found.uar.value == 0.375
    assert found.p_value > 0.05


def test_the_interval_is_that_of_every_score(monkeypatch):
    from koser.evaluation.scoring import evaluate

    rng = np.random.default_rng(3)
    labels, predicted = rng.integers(3, size=(2, 240))
    names = np.array(["a", "b", "c"])
    clusters = speakers(12, 20)
    found = uar_above_chance(labels, guesses(predicted), clusters).uar
    expected = evaluate(
        names[labels], guesses(predicted), labels=tuple(names), clusters=clusters
    ).scores["uar"]
    assert found.value == pytest.approx(expected.value)
    assert found.low == pytest.approx(expected.low, abs=0.02)
    assert found.high == pytest.approx(expected.high, abs=0.02)


def test_nothing_to_score_is_refused():
    with pytest.raises(UndefinedMetricError, match="no utterance to score"):
        uar_above_chance(np.zeros(0, np.int64), np.zeros((0, 2)), None)
