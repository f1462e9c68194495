"""What a reader must know beside intervals, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from koser.evaluation.intervals import Intervals

# Below this many clusters an interval comes with a note. In simulation 95 % intervals cover
# 93 to 98 % with any number (benchmarks/25_interval_coverage.py), but what is simulated is a
# population of speakers without exceptions, of which so few could not show any.
MIN_CLUSTERS = 5


def interval_notes(
    n_clusters: int, n_with_label: np.ndarray, labels: Sequence[str], cluster_kind: str | None
) -> list[str]:
    """What belongs beside intervals: that they rest on few clusters, or why one is missing.

    Parameters
    ----------
    n_clusters : int
        Clusters; of two sides, those of the smaller one.
    n_with_label : np.ndarray [shape=(n_classes,)]
        Clusters that have reference utterances of each label; of two sides, the fewer.
    labels : Sequence[str]
        The labels they are of.
    cluster_kind : str or None
        What a cluster is.

    Returns
    -------
    list[str]
        One sentence each; often none.
    """
    notes = []
    kind = cluster_kind or "cluster"
    if n_clusters < MIN_CLUSTERS:
        notes.append(
            f"Only {n_clusters} clusters ({kind}): the intervals are wide, and hold only if these "
            f"few are like all others."
        )
    places = np.flatnonzero(n_with_label == 1).tolist()
    lonely = " and ".join(f"'{labels[place]}'" for place in places)
    if lonely:
        notes.append(
            f"No interval of UAR, macro-F1 and the recall of {lonely}: only one cluster ({kind}) "
            f"has utterances of it."
        )
    return notes


def flat_notes(intervals: Intervals, names: Sequence[str], cluster_kind: str | None) -> list[str]:
    """Why scores that are the same in every cluster have no interval.

    Parameters
    ----------
    intervals : Intervals
        Of the scores.
    names : Sequence[str]
        What they are called in a sentence.
    cluster_kind : str or None
        What a cluster is.

    Returns
    -------
    list[str]
        One sentence, or none.
    """
    flat = [name for name, is_flat in zip(names, intervals.is_flat, strict=True) if is_flat]
    if not flat:
        return []
    return [
        f"No interval of {', '.join(flat)}: the same in every cluster "
        f"({cluster_kind or 'cluster'}), which says nothing about others."
    ]


def permutation_notes(n_informative: int, cluster_kind: str | None) -> list[str]:
    """Why a permutation test of two systems cannot find a difference.

    Parameters
    ----------
    n_informative : int
        Clusters on which the systems differ at all.
    cluster_kind : str or None
        What a cluster is.

    Returns
    -------
    list[str]
        One sentence, or none.
    """
    kind = cluster_kind or "cluster"
    if not n_informative:
        return [f"The systems score alike in every {kind}: there is no difference to test."]
    smallest = 2 / 2**n_informative
    if smallest <= 0.05:
        return []
    clusters = f"{n_informative} cluster{'s' * (n_informative > 1)}"
    return [
        f"The systems differ on {clusters} ({kind}) only: no permutation test can reach "
        f"p < {smallest:g}."
    ]
