"""What the raters of a manifest's utterances said, as counts and as shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from koser.data.manifest import Manifest


def vote_counts(votes: pl.Series, labels: Sequence[str]) -> np.ndarray:
    """How many raters gave each label to each utterance.

    Parameters
    ----------
    votes : pl.Series [shape=(n_utterances,)]
        The column ``votes`` of a manifest.
    labels : Sequence[str]
        All classes of the task, in order.

    Returns
    -------
    np.ndarray [shape=(n_utterances, n_labels + 1), dtype=int64]
        The last column counts votes for anything else.

    Examples
    --------
    >>> votes = pl.Series([[{"label": "fear"}, {"label": "awe"}], None])
    >>> vote_counts(votes, ["angry", "fear"]).tolist()
    [[0, 1, 1], [0, 0, 0]]
    """
    counts = np.zeros((len(votes), len(labels) + 1), np.int64)
    table = pl.DataFrame({"votes": votes}).with_row_index("row").explode("votes")
    given = table.drop_nulls("votes").unnest("votes").drop_nulls("label")
    place = {label: column for column, label in enumerate(labels)}
    columns = np.array([place.get(label, len(labels)) for label in given["label"]], np.int64)
    np.add.at(counts, (given["row"].to_numpy(), columns), 1)
    return counts


def labels_voted(votes: pl.Series, labels: Sequence[str]) -> tuple[str, ...]:
    """The classes of the task, in order, and behind them what else raters said.

    Parameters
    ----------
    votes : pl.Series [shape=(n_utterances,)]
        The column ``votes`` of a manifest.
    labels : Sequence[str]
        All classes of the task.
    """
    given = votes.explode().drop_nulls().struct.field("label").drop_nulls().unique()
    return (*labels, *sorted(set(given) - set(labels)))


def rater_shares(manifest: Manifest) -> np.ndarray:
    """The raters' distribution over the labels of the task.

    Votes for labels that the task does not have are no part of it: shares are of the others.
    Where the votes themselves are not kept but their distribution is, it is taken.

    Parameters
    ----------
    manifest : Manifest
        The utterances.

    Returns
    -------
    np.ndarray [shape=(n_utterances, n_labels)]
        float64; each row adds up to 1, or is 0 where nobody voted for a label of the task.
    """
    counts = vote_counts(manifest.table["votes"], manifest.labels)[:, :-1]
    shares: np.ndarray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    kept = manifest.table["distribution"]
    for row in np.flatnonzero((counts.sum(axis=1) == 0) & kept.is_not_null().to_numpy()).tolist():
        shares[row] = kept[row].to_numpy()
    return shares
