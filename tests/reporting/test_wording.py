import pytest

from koser.reporting.language import load_phrases
from koser.reporting.sections.trust import _above_baselines
from koser.reporting.wording import (
    SYNTHETIC,
    gap_line,
    headline,
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
