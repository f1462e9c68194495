"""Answers held against the raters: their distributions, by how far they agree, and a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from koser.data.manifest import Manifest
from koser.data.raters import labels_voted, rater_shares, vote_counts
from koser.errors import UndefinedMetricError
from koser.evaluation.agreement import evaluate_agreement, human_ceiling
from koser.evaluation.answers import AnswerScores, score_answers
from koser.evaluation.distributions import LEVELS, agreement_levels, evaluate_distributions

Json = dict[str, Any]  # Any: what JSON can hold


def score_against_votes(
    manifest: Manifest,
    predictions: pl.DataFrame,
    probabilities: np.ndarray,
    *,
    clusters: np.ndarray | None,
    prior: np.ndarray | None = None,
) -> Json | None:
    """How close probabilities come to the raters' votes, and where the raters disagree.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    predictions : pl.DataFrame
        With ``id`` and ``label``, a row per utterance and seed.
    probabilities : np.ndarray [shape=(n_rows, n_labels)]
        Of these rows.
    clusters : np.ndarray or None [shape=(n_rows,)]
        What stands for the speaker.
    prior : np.ndarray, optional [shape=(n_rows, n_labels)]
        What the train part's raters said on the whole: the answer of a system that hears nothing.

    Returns
    -------
    dict or None
        Scores, ``prior`` (the same of `prior`), ``levels`` (by agreement), and how many
        utterances are tied, have votes outside of the labels, or none. None without votes.
    """
    of_id = predictions.select("id").join(
        manifest.table.select("id").with_row_index("row"), on="id", maintain_order="left"
    )
    rows = of_id["row"].to_numpy()
    shares, counts = rater_shares(manifest), vote_counts(manifest.table["votes"], manifest.labels)
    is_rated = shares[rows].any(axis=1)
    if not is_rated.any():
        return None
    kept = rows[is_rated]
    of_cluster = None if clusters is None else clusters[is_rated]
    n_votes = counts[kept, :-1].sum(axis=1)
    levels = agreement_levels(shares[kept], n_votes)
    tested = np.unique(rows)
    return {
        **evaluate_distributions(
            shares[kept], probabilities[is_rated], clusters=of_cluster
        ).to_dict(),
        "prior": None
        if prior is None
        else evaluate_distributions(shares[kept], prior[is_rated], clusters=of_cluster).to_dict(),
        "levels": _by_level(
            kept,
            levels,
            predictions["label"].to_numpy()[is_rated],
            shares[kept],
            probabilities[is_rated],
            of_cluster,
            manifest.labels,
        ),
        "n": len(np.unique(kept)),
        "n_tied": int((levels[np.unique(kept, return_index=True)[1]] == "tied").sum()),
        "n_without_votes": int((~shares[tested].any(axis=1)).sum()),
        "n_votes_outside": int(counts[tested, -1].sum()),
    }


def train_prior(manifest: Manifest, parts: Sequence[tuple[np.ndarray, int]]) -> np.ndarray | None:
    """The mean distribution of each training's train part, repeated for its tested rows.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    parts : Sequence[tuple[np.ndarray, int]]
        Of each training, the rows it learnt from, and how many it was tested on.

    Returns
    -------
    np.ndarray or None [shape=(n_tested in all, n_labels)]
        None where a train part has no votes.
    """
    shares = rater_shares(manifest)
    means = []
    for rows, n_tested in parts:
        rated = shares[rows][shares[rows].any(axis=1)]
        if not len(rated):
            return None
        means.append(np.tile(rated.mean(axis=0), (n_tested, 1)))
    return np.concatenate(means)


def score_raters(
    manifest: Manifest,
    predictions: pl.DataFrame,
    *,
    clusters: np.ndarray | None,
) -> Json | None:
    """How far the raters of the tested utterances agree, and how good they are.

    The parameters are those of `score_against_votes`.

    Returns
    -------
    dict or None
        None where the manifest keeps no votes. ``label_is_plurality`` is the share of all of the
        manifest's utterances whose label is that of most raters, where one has most votes.
    """
    labels, kind = manifest.labels, manifest.provenance.grouping
    ids = predictions.select("id", "label").unique("id", maintain_order=True)
    table = manifest.table.select("id", "votes")
    rated = ids.join(table, on="id", how="left", maintain_order="left")
    # Votes for different labels are different answers, also where the task has neither.
    counts = vote_counts(rated["votes"], labels_voted(rated["votes"], labels))[:, :-1]
    if not counts.any():
        return None
    of_cluster = None
    if clusters is not None:
        first = predictions.select(pl.col("id").is_first_distinct())["id"].to_numpy()
        of_cluster = clusters[first]
    ceiling = human_ceiling(
        counts, ids["label"].to_numpy(), labels=labels, clusters=of_cluster, cluster_kind=kind
    )
    others = ceiling.against_others
    return {
        "n_votes": int(counts.sum()),
        "agreement": _agreement(counts, of_cluster, kind),
        "against_others": None if others is None else _answer_scores(others),
        "n_tied": ceiling.n_tied,
        "against_label": _answer_scores(ceiling.against_label),
        "label_is_plurality": _share_of_plurality(manifest),
        "label_policy": manifest.provenance.label_policy,
    }


def _share_of_plurality(manifest: Manifest) -> float | None:
    """How often the label is what most raters said, where one label has most votes."""
    table, names = manifest.table, labels_voted(manifest.table["votes"], manifest.labels)
    counts = vote_counts(table["votes"], names)[:, :-1]
    has_one = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    if not has_one.any():
        return None
    said = np.array(names)[counts[has_one].argmax(axis=1)]
    return float((said == table["label"].to_numpy()[has_one]).mean())


def _by_level(
    rows: np.ndarray,
    levels: np.ndarray,
    y_true: np.ndarray,
    shares: np.ndarray,
    probabilities: np.ndarray,
    clusters: np.ndarray | None,
    labels: Sequence[str],
) -> list[Json]:
    """Scores of the utterances of each level of agreement that occurs, the lowest first."""
    y_pred = np.array(labels)[probabilities.argmax(axis=1)]
    found = []
    for level in LEVELS:
        of_level = levels == level
        if not of_level.any():
            continue
        of_cluster = None if clusters is None else clusters[of_level]
        scores = evaluate_distributions(
            shares[of_level], probabilities[of_level], clusters=of_cluster
        ).to_dict()
        answers = score_answers(
            y_true[of_level], y_pred[of_level], labels=labels, clusters=of_cluster
        )
        accuracy = answers.scores["accuracy"]
        scores["accuracy"], scores["ci95"]["accuracy"] = accuracy.value, accuracy.bounds
        scores["n"] = len(np.unique(rows[of_level]))  # not once per seed
        found.append({"level": level, **scores})
    return found


def _agreement(
    counts: np.ndarray, clusters: np.ndarray | None, cluster_kind: str | None
) -> Json | None:
    try:
        found = evaluate_agreement(counts, clusters=clusters, cluster_kind=cluster_kind)
    except UndefinedMetricError:  # a single vote each, or one label for all
        return None
    measures = {
        "fleiss_kappa": found.fleiss_kappa,
        "krippendorff_alpha": found.krippendorff_alpha,
    }
    return {
        **{name: score.value for name, score in measures.items()},
        "ci95": {name: score.bounds for name, score in measures.items()},
        "n": found.n_utterances,
        "n_votes": found.n_votes,
        "n_speakers": found.n_clusters,
        "notes": list(found.notes),
    }


def _answer_scores(found: AnswerScores) -> Json:
    return {
        **{name: score.value for name, score in found.scores.items()},
        "ci95": {name: score.bounds for name, score in found.scores.items()},
        "n_votes": found.n_answers,
        "n_speakers": found.n_clusters,
        "labels_absent": list(found.labels_absent),
        "notes": list(found.notes),
    }
