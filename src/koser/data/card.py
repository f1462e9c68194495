"""The data card of a run: what there was to learn from, and what became of the rest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import polars as pl

from koser.data.manifest import Manifest
from koser.data.splits import PARTS, Split
from koser.data.summary import summarise


def data_card(manifest: Manifest, split: Split) -> dict[str, Any]:
    """Everything a reader should know of the data, as JSON values.

    Nothing in it names an utterance, a text or a person, so it may be passed on where the
    corpus may not.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    split : Split
        Their parts.

    Returns
    -------
    dict
        ``corpora`` and ``languages``; the fields of `koser.data.summary.Summary`, but for
        single speakers; ``n_speakers`` (None where nothing tells them apart); ``parts``,
        see `part_sizes`.

    Raises
    ------
    SplitError
        If the split is not the manifest's.
    """
    summary = asdict(summarise(manifest))
    per_group = summary.pop("per_group")
    return {
        "corpora": manifest.table["corpus"].unique().sort().to_list(),
        "languages": manifest.table["language"].drop_nulls().unique().sort().to_list(),
        **summary,
        "n_speakers": len(per_group) if manifest.provenance.grouping else None,
        "parts": part_sizes(manifest, split),
    }


def part_sizes(manifest: Manifest, split: Split) -> list[dict[str, Any]]:
    """How large each part is; of a cross-validation, the mean over its folds.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    split : Split
        Their parts.

    Returns
    -------
    list[dict]
        In the order of `PARTS`, those that have rows: ``part``, ``n`` utterances,
        ``n_speakers``, ``hours`` and ``per_label``.

    Raises
    ------
    SplitError
        If the split is not the manifest's.
    """
    split.check(manifest)
    column = manifest.grouping_column
    speaker = pl.lit(None, pl.String) if column is None else pl.col(column)
    facts = manifest.table.select("id", "label", "duration", speaker.alias("who"))
    table = split.table.join(facts, on="id")
    sizes = []
    for part in PARTS:
        rows = table.filter(part=part)
        if not rows.height:
            continue
        counts = dict(rows["label"].value_counts().iter_rows())
        n_who = rows.group_by("fold").agg(pl.col("who").n_unique())["who"].sum()
        sizes.append(
            {
                "part": part,
                "n": rows.height / split.n_folds,
                "n_speakers": None if column is None else n_who / split.n_folds,
                "hours": float(rows["duration"].sum()) / 3600 / split.n_folds,
                "per_label": {
                    label: counts.get(label, 0) / split.n_folds for label in manifest.labels
                },
            }
        )
    return sizes
