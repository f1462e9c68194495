"""Labels against what is known of the utterances, as counts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl

from koser.data.assignment import IntArray, count_table
from koser.data.audit.results import Table
from koser.data.manifest import Manifest

N_DURATIONS = 4


def label_tables(manifest: Manifest) -> Iterator[Table]:
    """Label × release, gender, age band and quarter of the durations, where known.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    """
    table = manifest.table
    for name in ("release", "gender"):
        if table[name].null_count() < len(table):
            yield _table(manifest, name, table[name].fill_null("unknown"))
    if table["age"].null_count() < len(table):
        decade = (table["age"] // 10 * 10).cast(pl.String) + "s"
        yield _table(manifest, "age", decade.fill_null("unknown"))
    yield _table(manifest, "duration", _quarters(table["duration"].to_numpy()))


def cramers_v(counts: IntArray) -> float | None:
    """Association of rows and columns, corrected for bias [1]_.

    Parameters
    ----------
    counts : np.ndarray [shape=(n_rows, n_columns)]
        Of utterances.

    Returns
    -------
    float or None
        In [0, 1]; None where there is one row or one column, or the correction leaves no more.

    References
    ----------
    .. [1] Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", Journal of the
       Korean Statistical Society 42(3), 2013.

    Examples
    --------
    >>> cramers_v(np.array([[50, 0], [0, 50]])), cramers_v(np.array([[5, 5], [5, 5]]))
    (1.0, 0.0)
    """
    used = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    n_rows, n_columns = used.shape
    n = used.sum()
    if min(n_rows, n_columns) < 2 or n < 2:
        return None
    expected = used.sum(axis=1, keepdims=True) * used.sum(axis=0) / n
    phi = float(((used - expected) ** 2 / expected).sum() / n)
    bias = (n_rows - 1) * (n_columns - 1) / (n - 1)
    rows, columns = (size - (size - 1) ** 2 / (n - 1) for size in (n_rows, n_columns))
    # Where every utterance has a row or a column of its own, nothing is left to compare with.
    if min(rows, columns) - 1 < 1e-9:
        return None
    squared = max(0.0, phi - bias) / (min(rows, columns) - 1)
    return float(np.sqrt(min(squared, 1.0)))  # rounding may exceed 1


def _table(manifest: Manifest, name: str, values: pl.Series) -> Table:
    columns = values.unique(maintain_order=name == "duration").to_list()
    columns = sorted(columns, key=_quarter_start) if name == "duration" else sorted(columns)
    place = {value: number for number, value in enumerate(columns)}
    row = {label: number for number, label in enumerate(manifest.labels)}
    counts = np.zeros((len(row), len(place)), np.int64)
    rows = np.array([row[label] for label in manifest.table["label"]], np.int64)
    found = count_table(rows, np.array([place[value] for value in values], np.int64), len(place))
    counts[: len(found)] = found
    return Table(
        name,
        manifest.labels,
        tuple(columns),
        tuple(tuple(line) for line in counts.tolist()),
        cramers_v(counts),
    )


def _quarters(durations: np.ndarray) -> pl.Series:
    """Names of the quarters of `durations`, such as ``1.3–3.9 s``; fewer where many are equal."""
    edges = np.unique(np.quantile(durations, np.linspace(0, 1, N_DURATIONS + 1)))
    if len(edges) < 2:
        return pl.Series([f"{edges[0]:.1f} s"] * len(durations))
    names = [f"{low:.1f}–{high:.1f} s" for low, high in pairwise(edges)]
    place = np.clip(np.searchsorted(edges, durations, side="right") - 1, 0, len(names) - 1)
    return pl.Series([names[number] for number in place.tolist()], dtype=pl.String)


def _quarter_start(name: str) -> float:
    return float(name.partition("–")[0].removesuffix(" s"))
