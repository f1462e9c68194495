"""The gap between two protocols: its arithmetic, its rules, and whether its intervals cover."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from koser.errors import LabelError, UndefinedMetricError
from koser.evaluation.gap import Side, evaluate_gap
from koser.evaluation.scoring import evaluate

LABELS = ["angry", "neutral", "sadness"]


def answers(seed, speakers, *, skill=0.6, n_each=12, name="random"):
    """A side whose speakers are understood with probability `skill`, all or one each."""
    rng = np.random.default_rng(seed)
    speakers = np.asarray(speakers)
    clusters = np.repeat(speakers, n_each)
    true_ids = rng.integers(3, size=clusters.size)
    is_right = rng.random(clusters.size) < np.repeat(np.broadcast_to(skill, speakers.shape), n_each)
    predicted = np.where(is_right, true_ids, (true_ids + rng.integers(1, 3, clusters.size)) % 3)
    names = np.array(LABELS)
    return Side(name, names[true_ids], names[predicted], clusters)


def scores_without(side, speaker):
    rows = side.clusters != speaker
    y_true, y_pred = side.y_true[rows], side.y_pred[rows]
    return np.array(
        [
            sklearn.metrics.balanced_accuracy_score(y_true, y_pred),
            sklearn.metrics.accuracy_score(y_true, y_pred),
        ]
    )


@pytest.mark.parametrize("seed", range(3))
def test_intervals_equal_a_jackknife_that_leaves_a_speaker_out_of_both_sides(seed):
    # Four speakers are on both sides, four on the first alone, two on the second alone.
    first = answers(seed, range(8), skill=0.8, n_each=15)
    second = answers(seed + 10, [4, 5, 6, 7, 8, 9], n_each=12, name="speaker")
    gap = evaluate_gap(first, second, labels=LABELS)
    left = np.array([scores_without(first, i) - scores_without(second, i) for i in range(10)])
    errors = np.sqrt(9 / 10 * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    # The second side has 6 speakers of 12 utterances each: fewer than the first.
    margin = scipy.stats.t.ppf(0.975, 5) * errors[1]
    value = gap.scores["accuracy"].value
    assert gap.scores["accuracy"].bounds == pytest.approx([value - margin, value + margin])
    # As many of each label would weigh the same; here they nearly do.
    uar = gap.scores["uar"]
    assert (uar.high - uar.low) / 2 / errors[0] == pytest.approx(margin / errors[1], rel=0.05)
    assert (gap.n_clusters, gap.n_shared_clusters) == (10, 4)
    assert gap.interval_method == "cluster jackknife, Student's t"


def test_a_value_is_the_difference_of_the_two_sides_scores():
    first, second = answers(0, range(12), skill=0.9), answers(1, range(6))
    gap = evaluate_gap(first, second, labels=LABELS)
    for name, score in (
        ("uar", sklearn.metrics.balanced_accuracy_score),
        ("accuracy", sklearn.metrics.accuracy_score),
    ):
        expected = score(first.y_true, first.y_pred) - score(second.y_true, second.y_pred)
        assert gap.scores[name].value == pytest.approx(expected)
        assert gap.scores[name].low <= expected <= gap.scores[name].high


def test_the_gap_of_a_result_with_itself_is_exactly_nothing_and_says_nothing_of_others():
    side = answers(0, range(12))
    gap = evaluate_gap(side, replace(side, name="again"), labels=LABELS, cluster_kind="speaker")
    for score in gap.scores.values():
        assert (score.value, score.bounds) == (0, None)
    assert gap.notes == (
        "No interval of UAR, accuracy: the same in every cluster (speaker), which says nothing "
        "about others.",
    )


def test_the_other_direction_is_the_same_gap_with_the_other_sign():
    first, second = answers(0, range(12)), answers(1, range(3, 15), skill=0.8)
    there = evaluate_gap(first, second, labels=LABELS).scores["uar"]
    back = evaluate_gap(second, first, labels=LABELS).scores["uar"]
    assert there.value == -back.value
    assert there.bounds == pytest.approx([-back.high, -back.low])


def test_sides_without_a_common_speaker_are_independent_samples():
    first, second = answers(0, range(150), skill=0.8), answers(1, range(150, 300))
    gap = evaluate_gap(first, second, labels=LABELS).scores["accuracy"]
    means = [(side.y_true == side.y_pred).reshape(150, -1).mean(axis=1) for side in (first, second)]
    welch = scipy.stats.ttest_ind(*means, equal_var=False).confidence_interval()
    # Degrees of freedom 149 there, 150 times 2 here: 0.4 % apart at most.
    assert gap.bounds == pytest.approx([welch.low, welch.high], rel=0.01)


def test_what_a_speaker_shifts_on_both_sides_is_no_gap():
    skill = np.random.default_rng(0).beta(3, 2, 40)
    first, second = answers(1, range(40), skill=skill), answers(2, range(40), skill=skill)
    gap = evaluate_gap(first, second, labels=LABELS).scores["accuracy"]
    halves = [
        evaluate(side.y_true, np.eye(3)[[LABELS.index(each) for each in side.y_pred]],
                 labels=LABELS, clusters=side.clusters).scores["accuracy"]
        for side in (first, second)
    ]  # fmt: skip
    as_if_independent = np.hypot(*(half.high - half.low for half in halves))
    assert gap.high - gap.low < 0.8 * as_if_independent


def test_intervals_cover_the_true_gap_about_95_percent_of_the_time():
    # Of 40 speakers, 16 are tested on the second side too. The truth: 0.1.
    n_covered = 0
    for seed in range(250):
        skill = 0.8 * np.random.default_rng(seed).beta(3, 2, 40)
        first = answers(1000 + seed, range(40), skill=skill + 0.1, n_each=8)
        second = answers(2000 + seed, range(16), skill=skill[:16], n_each=20)
        gap = evaluate_gap(first, second, labels=LABELS)
        n_covered += gap.scores["accuracy"].low <= 0.1 <= gap.scores["accuracy"].high
    # 250 replications have a standard error of 1.4 points.
    assert 0.90 <= n_covered / 250 <= 0.99


def test_under_several_seeds_an_utterance_counts_once_per_seed():
    """Neither the gap nor its interval is narrower because a result was repeated."""
    first, second = answers(0, range(12), skill=0.8), answers(1, range(6))
    once = evaluate_gap(first, second, labels=LABELS).scores["uar"]
    twice = Side(
        "random", *(np.tile(each, 2) for each in (first.y_true, first.y_pred, first.clusters))
    )
    repeated = evaluate_gap(twice, second, labels=LABELS).scores["uar"]
    assert [repeated.value, *repeated.bounds] == pytest.approx([once.value, *once.bounds])


def test_a_label_that_one_side_lacks_is_left_out_on_both_with_a_note():
    first, second = answers(0, range(12), skill=0.8), answers(1, range(6), name="speaker")
    rows = second.y_true != "sadness"
    kept = (each[rows] for each in (second.y_true, second.y_pred, second.clusters))
    second = Side("speaker", *kept)
    gap = evaluate_gap(first, second, labels=LABELS)
    uars = [
        np.mean(
            sklearn.metrics.recall_score(
                side.y_true, side.y_pred, labels=["angry", "neutral"], average=None
            )
        )
        for side in (first, second)
    ]
    assert gap.scores["uar"].value == pytest.approx(uars[0] - uars[1])
    assert gap.labels_scored == ("angry", "neutral")
    assert gap.notes[0] == (
        "UAR over 2 of 3 labels: no test utterance of 'speaker' is 'sadness'. "
        "It is not the difference of the two UARs, which are over other labels."
    )


def test_a_label_that_both_sides_lack_leaves_the_difference_of_their_uars():
    first, second = answers(0, range(12)), answers(1, range(6), name="speaker")
    gap = evaluate_gap(first, second, labels=[*LABELS, "fear"])
    assert gap.labels_scored == tuple(LABELS)
    assert gap.notes[0].endswith("of 'random' is 'fear', no test utterance of 'speaker' is 'fear'.")


def test_a_prediction_outside_the_labels_is_a_wrong_one():
    first = Side("a", ["angry", "angry"], ["angry", "boredom"])
    second = Side("b", ["angry", "angry"], ["angry", "angry"])
    assert evaluate_gap(first, second, labels=["angry"]).scores["uar"].value == -0.5


def test_few_speakers_on_either_side_are_announced():
    gap = evaluate_gap(answers(0, range(30)), answers(1, range(4)), labels=LABELS,
                       cluster_kind="speaker")  # fmt: skip
    assert any("Only 4 clusters (speaker): the intervals are wide" in n for n in gap.notes)


def test_with_one_side_of_few_speakers_the_interval_covers_too():
    # 40 speakers on one side, 5 others on the second: the interval is that of the five.
    n_covered = 0
    for seed in range(250):
        rng = np.random.default_rng(seed)
        first = answers(1000 + seed, range(40), skill=rng.beta(3, 2, 40))
        second = answers(2000 + seed, range(40, 45), skill=rng.beta(3, 2, 5))
        score = evaluate_gap(first, second, labels=LABELS).scores["accuracy"]
        n_covered += score.low <= 0 <= score.high
    # 250 replications have a standard error of 1.4 points.
    assert n_covered / 250 >= 0.91


@pytest.mark.parametrize("place", [0, 1])
def test_without_speakers_there_is_a_gap_but_no_interval(place):
    sides = [answers(0, range(12)), answers(1, range(6))]
    sides[place] = replace(sides[place], clusters=None)
    gap = evaluate_gap(*sides, labels=LABELS)
    assert gap.scores["uar"].value is not None
    assert gap.to_dict()["ci95"] == {"uar": None, "accuracy": None}
    assert gap.notes == ("No intervals: the speakers are unknown.",)
    assert (gap.n_clusters, gap.interval_method) == (None, None)


def test_one_speaker_alone_has_no_interval():
    gap = evaluate_gap(answers(0, [1]), answers(1, [1]), labels=LABELS)
    assert gap.scores["uar"].bounds is None
    assert "at least 2" in gap.notes[0]


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"y_pred": ["angry"]}, UndefinedMetricError, "2 reference labels but 1 predicted"),
        ({"clusters": ["F1"]}, UndefinedMetricError, r"shape \(1,\), not \(2,\)"),
        ({"clusters": ["F1", None]}, UndefinedMetricError, "1 of 2 utterances have no cluster"),
        ({"y_true": ["angry", "fear"]}, LabelError, "'fear'"),
        ({"y_true": [], "y_pred": [], "clusters": []}, UndefinedMetricError, "shape"),
        ({"y_true": ["sadness", "sadness"]}, UndefinedMetricError, "No label .* 'a' and 'b'"),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(changes, error, match):
    first = Side("a", ["angry", "neutral"], ["angry", "angry"], ["F1", "M1"])
    with pytest.raises(error, match=match):
        evaluate_gap(first, replace(first, name="b", **changes), labels=LABELS)
