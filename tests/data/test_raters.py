"""Votes counted, whoever gave them and for what."""

import numpy as np
import pytest

from fixtures.manifests import manifest
from fixtures.raters import simulate_votes, with_votes
from koser.data.raters import rater_shares, vote_counts
from koser.errors import ConfigError
from koser.systems.system import target_distributions
from koser.training.canaries import permute_labels


def invented(n=60):
    labels = ("angry", "neutral", "sadness")
    return manifest([{"label": labels[i % 3], "speaker": f"S{i % 5}"} for i in range(n)])


def test_counts_are_those_of_a_loop_and_add_up_to_the_votes():
    rated = simulate_votes(invented())
    counts = vote_counts(rated.table["votes"], ("angry", "sadness"))
    for row, votes in enumerate(rated.table["votes"].to_list()):
        names = [vote["label"] for vote in votes]
        assert counts[row].tolist() == [
            names.count("angry"), names.count("sadness"), names.count("neutral"),
        ]  # fmt: skip


def test_who_voted_in_which_order_changes_nothing():
    rated = simulate_votes(invented())
    rng = np.random.default_rng(0)
    names = [[vote["label"] for vote in votes] for votes in rated.table["votes"].to_list()]
    shuffled = with_votes(invented(), [list(rng.permutation(each)) for each in names])
    np.testing.assert_array_equal(rater_shares(shuffled), rater_shares(rated))
    np.testing.assert_array_equal(
        target_distributions(shuffled, "votes"), target_distributions(rated, "votes")
    )


def test_unanimous_votes_are_the_same_targets_as_labels():
    plain = invented()
    rated = with_votes(plain, [[label] * 4 for label in plain.table["label"]])
    np.testing.assert_array_equal(
        target_distributions(rated, "votes"), target_distributions(plain, "label")
    )


def test_a_label_is_a_target_whatever_raters_said_unless_votes_are_wanted():
    rated = simulate_votes(invented())
    np.testing.assert_array_equal(
        target_distributions(rated, "label"), target_distributions(invented(), "auto")
    )
    assert (target_distributions(rated, "votes").max(axis=1) < 1).any()


def test_an_utterance_without_a_vote_for_a_label_of_the_task_trains_on_its_label(caplog):
    plain = invented(6)
    votes = [["angry", "sadness"], None, ["awe", "awe"], ["awe", "neutral"], [], ["sadness"]]
    targets = target_distributions(with_votes(plain, votes), "votes")
    assert targets.tolist() == [
        [0.5, 0, 0.5], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 1],
    ]  # fmt: skip
    assert "3 of 6 utterances have no vote for a label of the task" in caplog.text


def test_votes_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError, match="none of the 60 utterances has raters' votes"):
        target_distributions(invented(), "votes")


def test_a_canary_that_deals_labels_deals_the_votes_with_them():
    plain = invented()
    rated = with_votes(plain, [[label] * 3 for label in plain.table["label"]])
    dealt, _ = permute_labels(rated, seed=1)
    assert (dealt.table["label"] != plain.table["label"]).any()
    np.testing.assert_array_equal(
        target_distributions(dealt, "votes"), target_distributions(dealt, "label")
    )
