"""Agreement of raters, against published examples and other implementations."""

from collections import Counter
from itertools import permutations

import krippendorff
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_kappa

from koser.errors import UndefinedMetricError
from koser.evaluation.agreement import (
    evaluate_agreement,
    fleiss_kappa,
    human_ceiling,
    krippendorff_alpha,
)

# Fleiss (1971), table 1: 30 patients, 6 raters, 5 diagnoses is not reprinted everywhere; this
# is the worked example of its Wikipedia article: 10 subjects, 14 raters, kappa = 0.210.
WORKED_EXAMPLE = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def test_kappa_of_the_worked_example_is_the_published_one():
    assert fleiss_kappa(WORKED_EXAMPLE) == pytest.approx(0.210, abs=5e-4)


def test_kappa_of_a_case_counted_by_hand():
    # pairs that agree: 3/3, 1/3, 3/3 -> 7/9; shares 5/9, 4/9 -> chance 41/81; 22/81 / (40/81)
    assert fleiss_kappa(np.array([[3, 0], [2, 1], [0, 3]])) == pytest.approx(22 / 40)


def test_kappa_of_perfect_agreement_is_one_and_of_chance_zero():
    rng = np.random.default_rng(0)
    assert fleiss_kappa(np.array([[5, 0, 0], [0, 5, 0], [0, 0, 5]])) == pytest.approx(1)
    by_chance = rng.multinomial(5, [0.6, 0.3, 0.1], size=20_000)
    # 20,000 utterances: a standard error of about 0.003
    assert fleiss_kappa(by_chance) == pytest.approx(0, abs=0.01)


@given(st.lists(st.permutations([4, 1, 0, 2]), min_size=1, max_size=8), st.randoms())
def test_kappa_does_not_depend_on_the_order_of_rows_or_columns(rows, random):
    counts = np.array(rows)
    order = list(range(4))
    random.shuffle(order)
    shuffled = counts[::-1][:, order]
    assert fleiss_kappa(shuffled) == pytest.approx(fleiss_kappa(counts), abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.empty((0, 3), int), "of 0 utterances none"),
        (np.array([[1, 0], [0, 1]]), "of 2 utterances none has two raters"),
        (np.array([[3, 0], [3, 0]]), "the same label"),
    ],
)
def test_kappa_is_refused_where_it_is_undefined(counts, message):
    with pytest.raises(UndefinedMetricError, match=message):
        fleiss_kappa(counts)


# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": 12 units, 4 observers, some
# missing; alpha = .743. Gwet (2014) has Fleiss' kappa of the same data: .761.
RELIABILITY_DATA = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, np.nan, np.nan, np.nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, np.nan, 3],
        [np.nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, np.nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, np.nan],
    ]
)


def counted(data, n_classes=5):
    return np.stack([(data == value).sum(axis=0) for value in range(1, n_classes + 1)], axis=1)


def votes_of(seed, n_utterances=60, n_classes=4):
    """Votes of one to six raters who often agree."""
    rng = np.random.default_rng(seed)
    liking = rng.dirichlet(np.full(n_classes, 0.4), n_utterances)
    return np.stack([rng.multinomial(rng.integers(1, 7), row) for row in liking])


def test_both_measures_of_published_data_with_missing_votes_are_the_published_ones():
    counts = counted(RELIABILITY_DATA)
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=5e-4)
    assert fleiss_kappa(counts) == pytest.approx(0.761, abs=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_alpha_agrees_with_another_implementation(seed):
    counts = votes_of(seed)
    expected = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    assert krippendorff_alpha(counts) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_kappa_agrees_with_statsmodels_where_all_have_equally_many_raters(seed):
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(5, rng.dirichlet(np.ones(4), 1)[0], size=50)
    assert fleiss_kappa(counts) == pytest.approx(statsmodels_kappa(counts), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_kappa_of_unequal_numbers_of_raters_agrees_with_counting_pairs(seed):
    counts = votes_of(seed)
    agreed, shares = [], []
    for row in counts:
        votes = np.repeat(np.arange(4), row)
        shares.append([np.mean(votes == label) for label in range(4)])
        if len(votes) > 1:
            agreed.append(np.mean([one == other for one, other in permutations(votes, 2)]))
    by_chance = np.sum(np.mean(shares, axis=0) ** 2)
    expected = (np.mean(agreed) - by_chance) / (1 - by_chance)
    assert fleiss_kappa(counts) == pytest.approx(expected, abs=1e-12)


def test_intervals_of_agreement_leave_whole_speakers_out():
    counts, speakers = votes_of(9), np.arange(60) % 6
    found = evaluate_agreement(counts, clusters=speakers)
    for score, measure in (
        (found.fleiss_kappa, fleiss_kappa),
        (found.krippendorff_alpha, krippendorff_alpha),
    ):
        left = np.array([measure(counts[speakers != speaker]) for speaker in range(6)])
        error = np.sqrt(5 / 6 * np.sum((left - left.mean()) ** 2))
        assert score.value == pytest.approx(measure(counts))
        # The upper end is cut off at 1.
        assert scipy.stats.t.ppf(0.975, 5) < (score.value - score.low) / error < 2.8
        assert score.high == pytest.approx(min(1, 2 * score.value - score.low))
    is_rated = counts.sum(axis=1) > 1
    assert (found.n_utterances, found.n_votes) == (is_rated.sum(), counts[is_rated].sum())
    assert found.n_clusters == 6


def test_raters_who_always_agree_have_no_interval_and_a_reason():
    counts = np.array([[3, 0], [0, 3]] * 6)
    found = evaluate_agreement(counts, clusters=np.arange(12) // 4, cluster_kind="speaker")
    assert (found.fleiss_kappa.value, found.fleiss_kappa.bounds) == (1, None)
    assert (found.krippendorff_alpha.value, found.krippendorff_alpha.bounds) == (1, None)
    assert found.notes == (
        "No interval of Fleiss' κ, Krippendorff's α: the same in every cluster (speaker), which "
        "says nothing about others.",
    )


def test_without_speakers_agreement_has_no_interval():
    found = evaluate_agreement(votes_of(1))
    assert (found.fleiss_kappa.bounds, found.n_clusters) == (None, None)
    alone = evaluate_agreement(votes_of(1), clusters=["F1"] * 60)
    assert (alone.krippendorff_alpha.bounds, alone.n_clusters) == (None, 1)


def raters_one_by_one(counts, labels):
    """Every vote beside the one most frequent label of the others, if there is one."""
    pairs, n_left = [], 0
    for row in counts:
        votes = np.repeat(np.arange(counts.shape[1]), row).tolist()
        for place, vote in enumerate(votes):
            others = votes[:place] + votes[place + 1 :]
            tally = Counter(others).most_common()
            is_decided = len(others) > 1 and (len(tally) == 1 or tally[0][1] > tally[1][1])
            if is_decided and tally[0][0] < len(labels):
                pairs.append((tally[0][0], vote))
            else:
                n_left += 1
    return np.array(pairs), n_left


@pytest.mark.parametrize("labels", [["angry", "fear", "sadness"], ["angry", "fear"]])
@pytest.mark.parametrize("seed", range(3))
def test_the_human_ceiling_agrees_with_asking_every_rater(seed, labels):
    counts = votes_of(seed)  # four columns: votes for one or two labels outside of the task's
    y_true = np.array(labels)[np.random.default_rng(seed).integers(len(labels), size=60)]
    found = human_ceiling(counts, y_true, labels=labels, clusters=np.arange(60) % 6)
    pairs, n_left = raters_one_by_one(counts, labels)
    against_others = found.against_others.scores
    assert against_others["accuracy"].value == pytest.approx(np.mean(pairs[:, 0] == pairs[:, 1]))
    recalls = [np.mean(pairs[pairs[:, 0] == k, 1] == k) for k in range(len(labels))]
    assert against_others["uar"].value == pytest.approx(np.mean(recalls))
    assert (found.against_others.n_answers, found.n_tied) == (len(pairs), n_left)
    of_label = [row[labels.index(label)] for row, label in zip(counts, y_true, strict=True)]
    expected = np.sum(of_label) / counts.sum()
    assert found.against_label.scores["accuracy"].value == pytest.approx(expected)
    assert found.against_label.n_answers == counts.sum()
    assert against_others["uar"].low < against_others["uar"].value < against_others["uar"].high


def test_raters_who_always_agree_reach_everything():
    counts = np.array([[5, 0, 0], [0, 5, 0]] * 6)
    found = human_ceiling(counts, ["a", "b"] * 6, labels=["a", "b"], clusters=np.arange(12) % 6)
    assert found.against_others.scores["uar"].value == 1
    assert found.against_label.scores["accuracy"].value == 1
    assert found.n_tied == 0


def test_votes_that_nobody_else_decides_are_counted_and_left_out():
    # Of two raters the other one alone is no majority; of three that all differ, neither.
    counts = np.array([[1, 1, 0], [1, 1, 1]])
    found = human_ceiling(counts, ["a", "b"], labels=["a", "b", "c"])
    assert found.against_others is None
    assert found.n_tied == 5
    with pytest.raises(UndefinedMetricError, match="hold no vote"):
        human_ceiling(counts * 0, ["a", "b"], labels=["a", "b", "c"])
