"""Scores against raters' distributions, held against SciPy."""

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

from koser.errors import UndefinedMetricError
from koser.evaluation.distributions import (
    LEVELS,
    SCORE_NAMES,
    agreement_levels,
    evaluate_distributions,
    jensen_shannon,
    top_sets,
)


def invented(seed=0, n_utterances=120, n_labels=5, n_raters=5):
    rng = np.random.default_rng(seed)
    counts = np.array(
        [rng.multinomial(n_raters, p) for p in rng.dirichlet(np.ones(n_labels), n_utterances)]
    )
    probabilities = rng.dirichlet(np.ones(n_labels), n_utterances)
    return counts, counts / n_raters, probabilities, np.arange(n_utterances) % 8


@pytest.mark.parametrize("seed", range(4))
def test_divergences_and_cross_entropy_agree_with_scipy(seed):
    _, shares, probabilities, _ = invented(seed)
    scores = evaluate_distributions(shares, probabilities).scores
    distances = scipy.spatial.distance.jensenshannon(shares, probabilities, base=2, axis=1)
    kl = scipy.stats.entropy(shares, probabilities, axis=1)
    assert scores["js"].value == pytest.approx(np.mean(distances**2), abs=1e-12)
    assert scores["kl"].value == pytest.approx(kl.mean(), abs=1e-12)
    expected = (kl + scipy.stats.entropy(shares, axis=1)).mean()
    assert scores["cross_entropy"].value == pytest.approx(expected, abs=1e-12)


def test_equal_distributions_do_not_differ_and_disjoint_ones_differ_wholly():
    _, shares, _, _ = invented()
    np.testing.assert_allclose(jensen_shannon(shares, shares), 0, atol=1e-12)
    assert jensen_shannon(np.array([[0.5, 0.5, 0]]), np.array([[0, 0, 1.0]])) == pytest.approx(1)
    scores = evaluate_distributions(shares, shares).scores
    assert scores["kl"].value == pytest.approx(0, abs=1e-12)
    assert scores["top1_in_set"].value == 1


def test_any_label_of_a_tie_is_in_the_set():
    shares = np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]])
    answers = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    assert evaluate_distributions(shares, answers).scores["top1_in_set"].value == pytest.approx(
        2 / 3
    )
    assert top_sets(shares).sum(axis=1).tolist() == [2, 2, 2]


def test_where_kl_is_not_defined_it_is_counted_and_left_out_of_its_mean():
    shares = np.array([[0.5, 0.5], [0.5, 0.5]])
    found = evaluate_distributions(shares, [[1.0, 0.0], [0.25, 0.75]], clusters=["a", "b"])
    assert found.n_without_kl == 1
    assert found.scores["kl"].value == pytest.approx(scipy.stats.entropy([0.5, 0.5], [0.25, 0.75]))
    assert any("KL is not defined for 1 of 2" in note for note in found.notes)
    nothing = evaluate_distributions(shares, [[1.0, 0.0], [1.0, 0.0]])
    assert nothing.scores["kl"].value is None
    assert np.isfinite(nothing.scores["cross_entropy"].value)


def test_the_order_of_rows_and_of_labels_changes_nothing():
    _, shares, probabilities, clusters = invented()
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(shares)), rng.permutation(shares.shape[1])
    one = evaluate_distributions(shares, probabilities, clusters=clusters).to_dict()
    other = evaluate_distributions(
        shares[rows][:, columns], probabilities[rows][:, columns], clusters=clusters[rows]
    ).to_dict()
    for name in SCORE_NAMES:
        assert one[name] == pytest.approx(other[name], abs=1e-12)
        assert one["ci95"][name] == pytest.approx(other["ci95"][name], abs=1e-9)


def test_intervals_are_over_speakers_and_hold_the_value():
    _, shares, probabilities, clusters = invented()
    found = evaluate_distributions(shares, probabilities, clusters=clusters)
    assert found.n_clusters == 8
    for score in found.scores.values():
        assert score.low < score.value < score.high
    # The same speakers ten times over are no more evidence than once.
    again = evaluate_distributions(
        np.tile(shares, (10, 1)), np.tile(probabilities, (10, 1)), clusters=np.tile(clusters, 10)
    )
    for name in SCORE_NAMES:
        assert again.scores[name].low == pytest.approx(found.scores[name].low, abs=1e-9)


def test_every_utterance_has_one_level_of_agreement():
    counts, shares, _, _ = invented()
    levels = agreement_levels(shares, counts.sum(axis=1))
    assert set(levels) <= set(LEVELS)
    for level, row in zip(levels, counts, strict=True):
        top, n_top = row.max(), (row == row.max()).sum()
        expected = (
            "tied" if n_top > 1 else "unanimous" if top == 5 else "majority" if top >= 3
            else "no majority"
        )  # fmt: skip
        assert level == expected
    assert agreement_levels(np.array([[1.0, 0.0]]), np.array([1])).tolist() == ["one vote"]


def test_what_is_no_distribution_is_refused():
    with pytest.raises(UndefinedMetricError, match="1 of 2 rows of `shares` are no distribution"):
        evaluate_distributions([[0, 0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(UndefinedMetricError, match="over the same labels"):
        evaluate_distributions([[0.5, 0.5]], [[0.5, 0.25, 0.25]])
