"""Two systems on the same utterances: arithmetic, tests, refusals."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from koser.errors import LabelError, UndefinedMetricError
from koser.evaluation.comparison import SCORE_NAMES, adjusted, compare_all, compare_systems
from koser.evaluation.pairing import Answers
from koser.evaluation.significance import holm

LABELS = ["angry", "neutral", "sadness"]


def answers(name, seed, *, skill=0.6, n_speakers=12, n_each=15, n_seeds=1):
    """A system that is right with probability `skill`, on utterances that all seeds share."""
    of_corpus, rng = np.random.default_rng(0), np.random.default_rng(seed)
    y_true = of_corpus.choice(LABELS, n_speakers * n_each)
    speakers = np.repeat([f"S{i:02}" for i in range(n_speakers)], n_each)
    ids = np.array([f"u{i:04}" for i in range(len(y_true))])
    ids, y_true, speakers = (np.tile(each, n_seeds) for each in (ids, y_true, speakers))
    is_right = rng.random(len(y_true)) < skill
    y_pred = np.where(is_right, y_true, rng.choice(LABELS, len(y_true)))
    return Answers(name, ids, y_true, y_pred, speakers)


def scores(side):
    """By scikit-learn, in the order of SCORE_NAMES."""
    kwargs = {"labels": LABELS, "average": "macro"}
    return np.array(
        [
            sklearn.metrics.recall_score(side.y_true, side.y_pred, **kwargs),
            sklearn.metrics.accuracy_score(side.y_true, side.y_pred),
            sklearn.metrics.f1_score(side.y_true, side.y_pred, **kwargs),
        ]
    )


def rows(side, kept):
    return Answers(
        side.name, *(e[kept] for e in (side.ids, side.y_true, side.y_pred, side.clusters))
    )


def test_differences_and_their_jackknife_agree_with_scikit_learn_speaker_by_speaker():
    first, second = answers("a", 1, skill=0.7), answers("b", 2)
    found = compare_systems(first, second, labels=LABELS, cluster_kind="speaker")
    expected = scores(first) - scores(second)
    assert [found.differences[n].value for n in SCORE_NAMES] == pytest.approx(expected.tolist())
    left = []
    for speaker in np.unique(first.clusters):
        kept = first.clusters != speaker
        left.append(scores(rows(first, kept)) - scores(rows(second, kept)))
    errors = np.sqrt(11 / 12 * np.sum((left - np.mean(left, axis=0)) ** 2, axis=0))
    # Equal speakers: the accuracy has 11 degrees of freedom.
    margin = scipy.stats.t.ppf(0.975, 11) * errors[1]
    bounds = [expected[1] - margin, expected[1] + margin]
    assert found.differences["accuracy"].bounds == pytest.approx(bounds)
    for place, name in ((0, "uar"), (2, "macro_f1")):
        score = found.differences[name]
        half = (score.high - score.low) / 2 / errors[place]
        # Labels differ a little from speaker to speaker, so they weigh a little differently.
        assert scipy.stats.t.ppf(0.975, 11) < half < scipy.stats.t.ppf(0.975, 10)


def test_the_paired_bootstrap_agrees_with_a_plain_loop_over_utterances():
    first, second = answers("a", 1, skill=0.7, n_speakers=6), answers("b", 2, n_speakers=6)
    found = compare_systems(first, second, labels=LABELS, seed=4)
    rng, names, drawn = np.random.default_rng(4), np.unique(first.clusters), []
    for _ in range(2000):
        speakers = names[rng.integers(6, size=6)]
        kept = np.concatenate([np.flatnonzero(first.clusters == name) for name in speakers])
        right = [np.mean(side.y_true[kept] == side.y_pred[kept]) for side in (first, second)]
        drawn.append(right[0] - right[1])
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.bootstrap["accuracy"].bounds == pytest.approx([low, high], abs=1e-9)


def test_p_values_agree_with_swapping_whole_speakers_by_hand():
    first, second = answers("a", 1, skill=0.75, n_speakers=6), answers("b", 2, n_speakers=6)
    found = compare_systems(first, second, labels=LABELS)
    _, speaker = np.unique(first.clusters, return_inverse=True)
    differences = []
    for swaps in product([False, True], repeat=6):
        is_swapped = np.array(swaps)[speaker]
        sides = (
            replace(first, y_pred=np.where(is_swapped, second.y_pred, first.y_pred)),
            replace(second, y_pred=np.where(is_swapped, first.y_pred, second.y_pred)),
        )
        differences.append(np.abs(scores(sides[0]) - scores(sides[1])))
    expected = np.mean(np.array(differences) >= differences[0] - 1e-12, axis=0)
    assert [found.p_values[name] for name in SCORE_NAMES] == pytest.approx(expected.tolist())
    assert (found.n_permutations, found.is_exact) == (64, True)


def test_the_other_direction_has_the_other_sign_and_the_same_p_values():
    first, second = answers("a", 1, skill=0.7), answers("b", 2)
    there = compare_systems(first, second, labels=LABELS)
    back = compare_systems(second, first, labels=LABELS)
    for name in SCORE_NAMES:
        one, other = there.differences[name], back.differences[name]
        assert [one.value, *one.bounds] == pytest.approx([-other.value, -other.high, -other.low])
    assert there.p_values == pytest.approx(back.p_values)


def test_the_order_of_rows_on_either_side_changes_nothing():
    first, second = answers("a", 1), answers("b", 2, skill=0.8)
    shuffled = rows(second, np.random.default_rng(3).permutation(len(second.ids)))
    one = compare_systems(first, second, labels=LABELS).to_dict()
    assert compare_systems(first, shuffled, labels=LABELS).to_dict() == one


def test_a_repeated_seed_makes_nothing_more_certain():
    first, second = answers("a", 1, skill=0.7), answers("b", 2)
    thrice = Answers("a", *(np.tile(e, 3) for e in (first.ids, first.y_true, first.y_pred,
                                                    first.clusters)))  # fmt: skip
    once = compare_systems(first, second, labels=LABELS)
    repeated = compare_systems(thrice, second, labels=LABELS)
    for name in SCORE_NAMES:
        one, other = once.differences[name], repeated.differences[name]
        assert [one.value, *one.bounds] == pytest.approx([other.value, *other.bounds])
    assert repeated.p_values == pytest.approx(once.p_values)
    assert (repeated.n_utterances, repeated.n_seeds) == (180, (3, 1))
    assert once.mcnemar is not None
    assert repeated.mcnemar is None


def test_several_seeds_of_a_system_are_scored_together():
    first, second = answers("a", 1, n_seeds=3), answers("b", 2, n_seeds=2)
    found = compare_systems(first, second, labels=LABELS)
    expected = scores(first) - scores(second)
    assert [found.differences[n].value for n in SCORE_NAMES] == pytest.approx(expected.tolist())


def test_a_system_against_itself_differs_by_exactly_nothing():
    side = answers("a", 1)
    found = compare_systems(side, replace(side, name="b"), labels=LABELS)
    for name in SCORE_NAMES:
        assert (found.differences[name].value, found.differences[name].bounds) == (0, None)
        assert found.p_values[name] == 1
    assert found.notes == (
        "No interval of UAR, accuracy, macro-F1: the same in every cluster (cluster), which says "
        "nothing about others.",
        "The systems score alike in every cluster: there is no difference to test.",
    )


@pytest.mark.parametrize("worse", [0.4, 0.5])
def test_two_speakers_that_are_better_by_the_same_have_no_interval(worse):
    y_true = np.tile(np.repeat(["angry", "neutral"], 10), 2)
    speakers = np.repeat(["S1", "S2"], 20)
    ids = np.array([f"u{i}" for i in range(40)])

    def system(name, share):
        is_right = np.tile(np.arange(10) < 10 * share, 4)
        y_pred = np.where(is_right, y_true, np.where(y_true == "angry", "neutral", "angry"))
        return Answers(name, ids, y_true, y_pred, speakers)

    found = compare_systems(
        system("a", 0.5), system("b", worse), labels=LABELS, cluster_kind="speaker"
    ).to_dict()
    assert found["uar"] == pytest.approx(0.5 - worse)
    assert found["ci95"] == found["ci95_bootstrap"] == dict.fromkeys(SCORE_NAMES)
    flat = [note for note in found["notes"] if note.startswith("No interval of")]
    assert len(flat) == 1
    assert "UAR, accuracy, macro-F1: the same in every cluster" in flat[0]


def test_labels_without_utterances_are_left_out_and_few_speakers_announced():
    first, second = answers("a", 1, n_speakers=4), answers("b", 2, n_speakers=4)
    found = compare_systems(first, second, labels=[*LABELS, "fear"], cluster_kind="speaker")
    assert found.labels_scored == tuple(LABELS)
    assert found.differences["uar"].value == pytest.approx((scores(first) - scores(second))[0])
    assert "Only 4 clusters (speaker): the intervals are wide" in found.notes[0]
    assert "no permutation test can reach p < 0.125" in found.notes[1]


def test_without_speakers_there_is_a_difference_and_nothing_else():
    first, second = (replace(answers(n, i), clusters=None) for i, n in enumerate("ab"))
    found = compare_systems(first, second, labels=LABELS).to_dict()
    assert found["uar"] is not None
    assert found["ci95"] == found["ci95_bootstrap"] == dict.fromkeys(SCORE_NAMES)
    assert found["p"] == dict.fromkeys(SCORE_NAMES)
    assert found["notes"] == ["Neither intervals nor permutation test: the speakers are unknown."]


def test_all_pairs_are_corrected_together_and_each_score_apart():
    systems = [answers(name, seed, skill=0.5 + 0.1 * seed) for seed, name in enumerate("abc")]
    found = compare_all(systems, labels=LABELS)
    assert [(each.first, each.second) for each in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    for name in SCORE_NAMES:
        expected = holm([each.p_values[name] for each in found])
        assert [each.p_adjusted[name] for each in found] == expected
    to_baseline = compare_all(systems, labels=LABELS, baseline=1)
    assert [(each.first, each.second) for each in to_baseline] == [("a", "b"), ("c", "b")]
    assert to_baseline[1].p_adjusted["uar"] <= found[2].p_adjusted["uar"]


def test_a_comparison_without_p_values_is_not_counted():
    with_p = compare_systems(answers("a", 1), answers("b", 2), labels=LABELS)
    bare = [replace(answers(n, i), clusters=None) for i, n in enumerate("ab")]
    without = compare_systems(*bare, labels=LABELS)
    first, second = adjusted([without, with_p])
    assert first.p_adjusted == dict.fromkeys(SCORE_NAMES)
    assert second.p_adjusted == with_p.p_values


def test_the_dictionary_is_json():
    found = compare_systems(answers("a", 1), answers("b", 2), labels=LABELS)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["ci95"]["uar"] == found.differences["uar"].bounds
    assert written["mcnemar"]["p_exact"] == found.mcnemar.p_exact
    assert written["n_seeds"] == [1, 1]


def changed(place, what, value):
    values = np.array(getattr(answers("b", 2), what))
    values[place] = value
    return {what: values}


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        (changed(0, "ids", "zz"), UndefinedMetricError,
         r"1 only on the first, 1 only on the second \('u0000', 'zz'\)"),
        (changed(0, "ids", "u0001"), UndefinedMetricError, "some utterances 1 times and others 2"),
        (changed(0, "y_true", "angry"), UndefinedMetricError, "other labels for 1 .* 'u0000'"),
        (changed(3, "clusters", "S99"), UndefinedMetricError, "other clusters for 1 .* 'u0003'"),
        ({"clusters": None}, UndefinedMetricError, "Only one of 'a' and 'b' has clusters"),
        ({"ids": ["u"]}, UndefinedMetricError, "1 ids for 180 answers"),
        (changed(0, "y_true", "calm"), LabelError, "'calm'"),
    ],
)  # fmt: skip
def test_answers_that_are_no_pairs_are_refused_in_one_line(changes, error, match):
    with pytest.raises(error, match=match) as caught:
        compare_systems(answers("a", 1), replace(answers("b", 2), **changes), labels=LABELS)
    assert "\n" not in str(caught.value)


def test_an_utterance_with_two_references_is_refused():
    twice = answers("a", 1, n_seeds=2)
    twice.y_true[0] = next(label for label in LABELS if label != twice.y_true[0])
    with pytest.raises(UndefinedMetricError, match="'u0000' more than one label"):
        compare_systems(twice, answers("b", 2), labels=LABELS)
