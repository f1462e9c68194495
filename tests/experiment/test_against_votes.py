"""Runs held against their raters, who are SIMULATED here."""

import json

import numpy as np
import polars as pl
import pytest
import scipy.spatial.distance

from fixtures.manifests import manifest
from fixtures.raters import simulate_votes, with_votes
from koser.data.manifest import Manifest
from koser.data.raters import rater_shares, vote_counts
from koser.evaluation.agreement import fleiss_kappa
from koser.experiment.against_votes import score_against_votes, score_raters, train_prior

LABELS = ("angry", "neutral", "sadness")


def invented_answers(n=90, seed=0, n_seeds=1):
    rng = np.random.default_rng(seed)
    plain = manifest([{"label": LABELS[i % 3], "speaker": f"S{i % 6}"} for i in range(n)])
    rated = simulate_votes(plain, agreement=0.5, seed=seed)
    predictions = pl.concat([rated.table.select("id", "label")] * n_seeds)
    probabilities = rng.dirichlet(np.ones(3), n * n_seeds)
    clusters = np.tile(rated.table["speaker"].to_numpy(), n_seeds)
    return rated, predictions, probabilities, clusters


def test_the_scores_are_those_of_the_raters_of_each_utterance_whatever_the_order_of_the_rows():
    rated, predictions, probabilities, clusters = invented_answers()
    order = np.random.default_rng(1).permutation(90)
    found = score_against_votes(
        rated, predictions[order.tolist()], probabilities[order], clusters=clusters[order]
    )
    shares = rater_shares(rated)
    expected = scipy.spatial.distance.jensenshannon(shares, probabilities, base=2, axis=1) ** 2
    assert found["js"] == pytest.approx(expected.mean())
    is_in = shares[np.arange(90), probabilities.argmax(1)] == shares.max(axis=1)
    assert found["top1_in_set"] == pytest.approx(is_in.mean())
    assert found["ci95"]["js"][0] < found["js"] < found["ci95"]["js"][1]


def test_levels_divide_the_utterances_and_their_mean_is_the_whole():
    rated, predictions, probabilities, clusters = invented_answers(n_seeds=2)
    found = score_against_votes(rated, predictions, probabilities, clusters=clusters)
    levels = found["levels"]
    assert {each["level"] for each in levels} >= {"tied", "majority"}
    assert sum(each["n"] for each in levels) == found["n"] == 90  # not once per seed
    for score in ("js", "kl", "cross_entropy", "top1_in_set"):
        mean = np.average([each[score] for each in levels], weights=[each["n"] for each in levels])
        assert mean == pytest.approx(found[score])
    counts = vote_counts(rated.table["votes"], rated.labels)[:, :-1]
    n_tied = ((counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum()
    assert found["n_tied"] == n_tied > 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_utterances_without_votes_and_votes_for_other_labels_are_counted_not_scored():
    rated, predictions, probabilities, clusters = invented_answers()
    names = [[vote["label"] for vote in each] for each in rated.table["votes"].to_list()]
    names[0], names[1], names[2] = None, ["awe", "awe"], ["awe", *names[2]]
    changed = with_votes(rated, names)
    found = score_against_votes(changed, predictions, probabilities, clusters=clusters)
    assert (found["n"], found["n_without_votes"], found["n_votes_outside"]) == (88, 2, 3)
    rest = score_against_votes(rated, predictions[2:], probabilities[2:], clusters=clusters[2:])
    assert found["js"] == pytest.approx(rest["js"])
    nobody = with_votes(rated, [None] * 90)
    assert score_against_votes(nobody, predictions, probabilities, clusters=clusters) is None
    assert score_raters(nobody, predictions, clusters=clusters) is None


def test_the_prior_is_what_the_train_parts_raters_said_and_scores_worse_than_the_raters_selves():
    rated, predictions, _, clusters = invented_answers()
    shares = rater_shares(rated)
    prior = train_prior(rated, [(np.arange(30), 60), (np.arange(60), 30)])
    np.testing.assert_allclose(prior[:60], np.tile(shares[:30].mean(axis=0), (60, 1)))
    np.testing.assert_allclose(prior[60:], np.tile(shares[:60].mean(axis=0), (30, 1)))
    found = score_against_votes(rated, predictions, shares, clusters=clusters, prior=prior)
    assert found["js"] == pytest.approx(0, abs=1e-9)
    assert found["prior"]["js"] > 0.05
    nobody = with_votes(rated, [None] * 90)
    assert train_prior(nobody, [(np.arange(30), 60)]) is None


def test_simulated_raters_are_as_good_as_they_were_made():
    plain = manifest([{"label": LABELS[i % 3], "speaker": f"S{i % 6}"} for i in range(1200)])
    rated = simulate_votes(plain, agreement=0.7, n_raters=6)
    found = score_raters(rated, rated.table.select("id", "label"), clusters=None)
    assert found["against_label"]["uar"] == pytest.approx(0.7, abs=0.02)
    assert found["n_votes"] == 7200
    assert found["against_others"]["uar"] == pytest.approx(0.7, abs=0.05)


def test_raters_who_differ_outside_of_the_labels_do_not_agree():
    # As after a mapping to fewer labels: fear, disgust and surprise are not one answer.
    rated, predictions, _, clusters = invented_answers()
    names = [["fear", "disgust", "surprise", label] for label in rated.table["label"]]
    apart = score_raters(with_votes(rated, names), predictions, clusters=clusters)
    assert apart["against_others"] is None
    chosen = [[label == name for name in LABELS] for label in rated.table["label"]]
    counts = np.hstack([np.array(chosen, int), np.ones((90, 3), int)])
    assert apart["agreement"]["fleiss_kappa"] == pytest.approx(fleiss_kappa(counts))
    names = [["fear", "fear", "fear", label] for label in rated.table["label"]]
    alike = score_raters(with_votes(rated, names), predictions, clusters=clusters)
    counts = np.hstack([np.array(chosen, int), np.full((90, 1), 3)])
    assert alike["agreement"]["fleiss_kappa"] == pytest.approx(fleiss_kappa(counts))
    assert alike["n_tied"] == 4 * 90  # decided, but for no label of the task


def test_whether_the_label_is_the_raters_own_is_told_from_their_votes():
    rated, predictions, _, _ = invented_answers()
    counts = vote_counts(rated.table["votes"], rated.labels)[:, :-1]
    has_one = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    plurality = np.array(rated.labels)[counts.argmax(axis=1)]
    expected = (plurality == rated.table["label"].to_numpy())[has_one].mean()
    found = score_raters(rated, predictions, clusters=None)
    assert found["label_is_plurality"] == pytest.approx(expected)
    assert 0.3 < expected < 0.9
    few = score_raters(rated, predictions.head(6), clusters=None)
    assert few["label_is_plurality"] == found["label_is_plurality"]  # not as the split falls
    decided = Manifest(
        rated.table.with_columns(label=pl.Series(plurality)), rated.provenance
    ).validate()
    assert score_raters(decided, predictions, clusters=None)["label_is_plurality"] == 1
    pairs = with_votes(rated, [["angry", "neutral"]] * 90)
    assert score_raters(pairs, predictions, clusters=None)["label_is_plurality"] is None
