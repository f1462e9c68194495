import pytest

from koser.reporting.language import load_phrases
from koser.reporting.sections.quality import rater_rows
from koser.reporting.sections.scores import score_table
from koser.reporting.sections.trust import _above_baselines
from koser.reporting.wording import (
    SYNTHETIC,
    gap_line,
    headline,
    human_rows,
    protocol_line,
    score_with_interval,
    without_voice_line,
)

METRICS = {
    "uar": 0.61234,
    "accuracy": 0.7,
    "nll": None,
    "ci95": {"uar": [0.5401, 0.6829], "accuracy": None, "nll": None},
    "chance_uar": 0.25,
    "majority_accuracy": 0.3,
    "n": 200,
    "n_speakers": 10,
    "cluster_kind": "speaker",
    "seeds": [42, 43],
    "protocol": {"protocol": "speaker+script", "n_folds": 50},
    "is_synthetic": False,
}


def test_a_score_is_shown_with_its_interval_where_there_is_one():
    assert score_with_interval(METRICS, "uar") == "0.612 [0.540, 0.683]"
    assert score_with_interval(METRICS, "accuracy") == "0.700"
    assert score_with_interval(METRICS, "nll") == "undefined"


@pytest.mark.parametrize(
    ("changes", "speakers"),
    [
        ({}, "10 speakers"),
        ({"n_speakers": 59, "cluster_kind": "group(age×gender)"}, "59 × group(age×gender)"),
        ({"n_speakers": None, "cluster_kind": None}, "speakers unknown"),
    ],
)
def test_what_a_score_rests_on_is_one_line(changes, speakers):
    line = protocol_line({**METRICS, **changes})
    assert line == f"split speaker+script, n = 200, {speakers}, 50 folds, seeds 42, 43"


def test_the_headline_names_chance_and_majority_and_synthetic_data():
    plain = headline(METRICS)
    assert "UAR 0.612 [0.540, 0.683] (chance 0.250)" in plain
    assert "accuracy 0.700 (majority 0.300)" in plain
    assert SYNTHETIC not in plain
    assert headline({**METRICS, "is_synthetic": True}).startswith(SYNTHETIC)


GAP = {
    "first": "random",
    "second": "speaker",
    "uar": 0.1234,
    "accuracy": -0.0101,
    "ci95": {"uar": [0.0801, 0.1599], "accuracy": [-0.05, 0.03]},
    "cluster_kind": "group(age×gender)",
    "interval_method": "cluster jackknife, Student's t",
}


def test_a_gap_is_one_line_with_signs():
    assert gap_line(GAP) == (
        "random - speaker: UAR +0.123 [+0.080, +0.160], accuracy -0.010 [-0.050, +0.030] "
        "(95 %, clustered by group(age×gender))"
    )


def test_a_gap_without_intervals_says_so():
    unknown = {**GAP, "ci95": {"uar": None, "accuracy": None}, "interval_method": None}
    assert gap_line(unknown) == ("random - speaker: UAR +0.123, accuracy -0.010 (no intervals)")
    flat = {**unknown, "interval_method": GAP["interval_method"]}
    assert gap_line(flat) == gap_line(unknown)


def test_what_needs_no_voice_stands_beside_a_score_where_it_was_probed():
    probes = [
        {"name": "metadata", "uar": 0.3851, "low": 0.294, "high": 0.485},
        {"name": "text", "uar": 1.0, "low": None, "high": None},
    ]
    assert without_voice_line({**METRICS, "probes": probes}) == (
        "Without the voice: metadata alone UAR 0.385 [0.294, 0.485], text alone UAR 1.000"
    )
    unknown = {"name": "text", "uar": None, "low": None, "high": None}
    assert without_voice_line({**METRICS, "probes": [unknown]}) == ""
    assert without_voice_line(METRICS) == ""


@pytest.mark.parametrize(("uar", "status"), [(0.3, "pass"), (0.6, "warn"), (0.9, "warn")])
def test_a_system_that_does_not_clearly_beat_a_probe_is_no_reason_to_believe(uar, status):
    probe = {"name": "text", "uar": uar, "low": None, "high": None}
    checks = list(_above_baselines({**METRICS, "probes": [probe]}, load_phrases("en")))
    assert [check.status for check in checks] == [status]
    assert f"{uar:.3f}" in checks[0].text


OTHERS = {"uar": 0.8, "accuracy": 0.85, "ci95": {"uar": None, "accuracy": None}, "n_votes": 541}
LABEL = {"uar": 0.6, "accuracy": 0.65, "ci95": {"uar": [0.5, 0.7], "accuracy": None},
         "n_votes": 600}  # fmt: skip


@pytest.mark.parametrize(
    ("share", "scores", "reference", "in_korean"),
    [
        (0.7, ("0.600 [0.500, 0.700]", "0.650"), "against this label",
         "평가자 한 명 대 이 라벨 0.600 [0.500, 0.700]"),
        (None, ("0.600 [0.500, 0.700]", "0.650"), "against this label",
         "평가자 한 명 대 이 라벨 0.600"),
        (1.0, ("0.800", "0.850"), "against the others, 541 of 600 votes",
         "평가자 한 명 대 나머지 평가자 0.800 (표 600개 중 541개)"),
    ],
)  # fmt: skip
def test_a_rater_stands_beside_a_system_on_the_same_reference(share, scores, reference, in_korean):
    raters = {"label_is_plurality": share, "against_others": OTHERS, "against_label": LABEL,
              "n_votes": 600}  # fmt: skip
    shown = human_rows({"raters": raters})
    assert shown == [
        ("UAR, one rater", scores[0], reference),
        ("accuracy, one rater", scores[1], reference),
    ]
    metrics = {**METRICS, "raters": raters, "macro_f1": 0.5, "ece": 0.1,
               "ci95": dict.fromkeys(("uar", "accuracy", "macro_f1", "nll", "ece"))}  # fmt: skip
    table = score_table(metrics | {"seeds": [42]}, load_phrases("ko"))
    assert in_korean in table.rows[0][2]


@pytest.mark.parametrize(("share", "n_references"), [(0.7, 2), (None, 2), (0.96, 1), (1.0, 1)])
def test_a_label_that_raters_decided_is_no_reference_for_them(share, n_references):
    """Of two votes, one of them the label, every rater would be right half of the time."""
    raters = {"label_is_plurality": share, "against_others": OTHERS, "against_label": LABEL,
              "n_votes": 600, "agreement": None}  # fmt: skip
    t = load_phrases("en")
    shown = [name for name, _ in rater_rows(raters, t)]
    assert shown == [t["raters.against_others"], t["raters.against_label"]][:n_references]


def test_runs_of_earlier_versions_and_runs_without_enough_votes_have_their_rows_too():
    old = {"against_others": OTHERS, "against_label": LABEL, "n_votes": 600}
    assert human_rows({"raters": old})[0][2] == "against the others, 541 of 600 votes"
    assert human_rows({"raters": {**old, "against_others": None}}) == []
    assert human_rows({}) == human_rows({"raters": None}) == []
