"""Scores by subgroup: the rules, the gap, and whether its interval holds for all pairs."""

import json

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from koser.errors import UndefinedMetricError
from koser.evaluation.gap import Side, evaluate_gap
from koser.evaluation.subgroups import Answered, evaluate_subgroups

LABELS = ["angry", "neutral", "sadness"]


def draw(seed, skills, *, n_speakers=6, n_each=20, spread=0.0):
    """Groups of speakers that are understood with a probability of their own."""
    rng = np.random.default_rng(seed)
    skill = np.repeat(skills, n_speakers) + rng.uniform(-spread, spread, len(skills) * n_speakers)
    skill = np.repeat(skill, n_each)
    y_true = rng.choice(LABELS, len(skill))
    wrong = np.array(LABELS)[(np.searchsorted(LABELS, y_true) + rng.integers(1, 3, len(skill))) % 3]
    y_pred = np.where(rng.random(len(skill)) < skill, y_true, wrong)
    speakers = np.repeat(np.arange(len(skills) * n_speakers), n_each)
    groups = np.array([f"g{i}" for i in range(len(skills))])[speakers // n_speakers]
    ids = np.array([f"u{i}" for i in range(len(skill))])
    return Answered(ids, y_true, y_pred, speakers), groups


def evaluate(answered, values, **kwargs):
    return evaluate_subgroups(answered, values, column="gender", labels=LABELS, **kwargs)


def test_every_subgroup_has_the_scores_of_its_utterances():
    answered, groups = draw(0, [0.8, 0.5, 0.6])
    table = evaluate(answered, groups)
    for subgroup in table.subgroups:
        rows = groups == subgroup.name
        y_true, y_pred = answered.y_true[rows], answered.y_pred[rows]
        scores = subgroup.scores
        expected = sklearn.metrics.balanced_accuracy_score(y_true, y_pred)
        assert scores["uar"].value == pytest.approx(expected)
        assert scores["accuracy"].value == pytest.approx(np.mean(y_true == y_pred))
        assert scores["accuracy"].low < scores["accuracy"].value < scores["accuracy"].high
        assert (subgroup.n_utterances, subgroup.n_clusters) == (120, 6)
    assert [each.name for each in table.subgroups] == ["g0", "g1", "g2"]
    ordered = evaluate(answered, groups, order=["g2", "absent", "g0", "g1"])
    assert [each.name for each in ordered.subgroups] == ["g2", "g0", "g1"]


def test_the_gap_is_between_best_and_worst_and_as_wide_as_for_all_pairs():
    answered, groups = draw(1, [0.8, 0.5, 0.6, 0.65])
    gap = evaluate(answered, groups).gaps["accuracy"]
    assert (gap.best, gap.worst, gap.n_pairs) == ("g0", "g1", 6)
    right = (answered.y_true == answered.y_pred).reshape(24, 20).mean(axis=1)
    assert gap.difference.value == pytest.approx(right[:6].mean() - right[6:12].mean())
    sides = [
        Side(name, *(np.asarray(e)[groups == name] for e in
                     (answered.y_true, answered.y_pred, answered.clusters)))
        for name in ("g0", "g1")
    ]  # fmt: skip
    alone = evaluate_gap(*sides, labels=LABELS).scores["accuracy"]
    ratio = scipy.stats.t.ppf(1 - 0.025 / 6, 5) / scipy.stats.t.ppf(0.975, 5)
    width = gap.difference.high - gap.difference.low
    assert width == pytest.approx(ratio * (alone.high - alone.low), rel=1e-6)


def test_where_all_subgroups_are_alike_the_gap_holds_zero_although_it_was_chosen():
    n_covered = 0
    for seed in range(150):
        answered, groups = draw(seed, [0.6] * 5, n_each=10, spread=0.3)
        n_covered += evaluate(answered, groups).gaps["accuracy"].difference.low <= 0
    # Bonferroni's intervals hold at least 95 %; the standard error of 150 is 1.8 points.
    assert n_covered / 150 >= 0.92


def test_a_small_subgroup_is_shown_and_takes_no_part_in_the_gap():
    answered, groups = draw(2, [0.7, 0.6, 0.1])
    kept = np.flatnonzero(groups != "g2").tolist() + np.flatnonzero(groups == "g2")[:29].tolist()
    table = evaluate(answered.select(np.array(kept)), groups[kept])
    small = table.subgroups[2]
    assert (small.n_utterances, small.is_small) == (29, True)
    assert small.scores["accuracy"].value is not None
    assert table.gaps["accuracy"].worst == "g1"
    assert table.notes == ("Not in the gap: 'g2' (fewer than 30 utterances or 2 clusters).",)


def test_a_subgroup_that_is_one_speaker_has_no_interval_and_no_gap():
    answered, _ = draw(3, [0.7])
    table = evaluate(answered, answered.clusters.astype(str))
    assert {each.scores["accuracy"].bounds for each in table.subgroups} == {None}
    assert table.gaps == {"uar": None, "accuracy": None}
    assert table.notes[0].startswith("No gap: 6 of 6 subgroups have fewer than 30 utterances")


def test_a_subgroup_that_lacks_a_label_has_an_accuracy_and_no_uar():
    answered, groups = draw(4, [0.7, 0.6, 0.5])
    kept = (groups != "g1") | (answered.y_true != "sadness")
    table = evaluate(answered.select(kept), groups[kept])
    lacking = table.subgroups[1]
    assert (lacking.scores["uar"].value, lacking.labels_absent) == (None, ("sadness",))
    assert lacking.scores["accuracy"].value is not None
    assert {table.gaps["uar"].best, table.gaps["uar"].worst} == {"g0", "g2"}
    assert "No UAR of 'g1': not every label occurs there." in table.notes


def test_a_note_names_a_few_subgroups_and_counts_the_others():
    answered, groups = draw(11, [0.7] * 9, n_speakers=1, n_each=40)
    table = evaluate(answered, groups)
    assert table.notes == ("No gap: 9 of 9 subgroups have fewer than 30 utterances or 2 clusters.",)
    lacking = answered.select(answered.y_true != "sadness")
    whole = Answered(*(np.append(getattr(lacking, e), getattr(answered, e)[-40:])
                       for e in ("ids", "y_true", "y_pred", "clusters")))  # fmt: skip
    table = evaluate(whole, np.append(groups[answered.y_true != "sadness"], ["z"] * 40))
    assert table.notes[1] == (
        "No UAR of 'g0', 'g1', 'g2', 'g3', 'g4' and 4 others: not every label occurs there."
    )


def test_subgroups_without_a_common_label_have_no_gap():
    answered, groups = draw(10, [0.7, 0.6])
    kept = np.where(groups == "g0", answered.y_true != "sadness", answered.y_true == "sadness")
    table = evaluate(answered.select(kept), groups[kept])
    assert table.gaps == {"uar": None, "accuracy": None}
    assert table.subgroups[1].scores["accuracy"].value is not None


def test_a_label_that_the_whole_lacks_is_missed_in_no_subgroup():
    answered, groups = draw(5, [0.7, 0.6])
    table = evaluate_subgroups(answered, groups, column="gender", labels=[*LABELS, "fear"])
    assert table.subgroups[0].labels_absent == ()
    assert table.gaps["uar"] is not None


def test_several_seeds_count_an_utterance_once_and_make_nothing_more_certain():
    answered, groups = draw(6, [0.7, 0.6])
    twice = answered.select(np.tile(np.arange(240), 2))
    one, two = evaluate(answered, groups), evaluate(twice, np.tile(groups, 2))
    assert two.subgroups[0].n_utterances == 120
    gaps = [table.gaps["uar"].difference for table in (one, two)]
    assert gaps[1].bounds == pytest.approx(gaps[0].bounds)


def test_utterances_without_a_value_are_counted_and_none_at_all_is_refused():
    answered, groups = draw(7, [0.7, 0.6])
    values = groups.astype(object)
    values[:7] = None
    table = evaluate(answered, values)
    assert table.n_unknown == 7
    assert table.notes == ("7 utterances have no value.",)
    assert table.subgroups[0].n_utterances == 113
    with pytest.raises(UndefinedMetricError, match="No test utterance has a value of 'gender'"):
        evaluate(answered, [None] * 240)


def test_equal_subgroups_have_a_gap_of_zero_between_two_of_them():
    answered, groups = draw(8, [0.7])
    both = answered.select(np.tile(np.arange(120), 2))
    gap = evaluate(both, np.repeat(["g0", "g1"], 120)).gaps["accuracy"]
    assert (gap.best, gap.worst, gap.difference.value) == ("g0", "g1", 0)
    assert groups[0] == "g0"


def test_the_dictionary_is_json():
    answered, groups = draw(9, [0.7, 0.6])
    table = evaluate(answered, groups)
    written = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert written["gap"]["uar"]["ci95"] == table.gaps["uar"].difference.bounds
    assert written["groups"][0]["n_speakers"] == 6
