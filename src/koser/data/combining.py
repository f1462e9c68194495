"""Several corpora as one manifest: whose utterance, whose speaker, and which labels.

Ids, speakers, groups and sessions get their corpus's name in front: ``ravdess/03``. So a speaker
of one corpus is never one of another, and every protocol that keeps speakers apart keeps them
apart across corpora. Texts stay as they are: a sentence that two corpora share is one script.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from koser.data.manifest import Manifest, Provenance
from koser.data.mapping import remap_distributions
from koser.errors import ManifestError
from koser.labels import ordered_labels

_OWN = ("id", "speaker", "group", "session")  # what is one corpus's own name for something


def combine(manifests: Sequence[Manifest]) -> Manifest:
    """One manifest of all utterances of several corpora.

    Parameters
    ----------
    manifests : Sequence[Manifest]
        One is returned as it is.

    Returns
    -------
    Manifest
        In the order of the manifests. Its labels are those of any of them; those that not
        every corpus has are noted, because the corpus gives them away.

    Raises
    ------
    ManifestError
        If a corpus is in two of them.
    """
    if len(manifests) == 1:
        return manifests[0]
    corpora = [sorted(each.table["corpus"].unique()) for each in manifests]
    names = [name for each in corpora for name in each]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(
            f"The corpus {', '.join(twice)} is in two of the manifests: its speakers could not be "
            f"kept apart. Give each corpus once."
        )
    labels = ordered_labels(label for each in manifests for label in each.labels)
    grouping = _grouping(manifests)
    tables = [_own_names(each, labels, grouping) for each in manifests]
    sources = ["+".join(each) for each in corpora]
    return Manifest(pl.concat(tables), _provenance(manifests, sources, labels, grouping)).validate()


def _grouping(manifests: Sequence[Manifest]) -> str | None:
    """What stands for a speaker in all of them together; nothing if one has nothing."""
    kinds = list(dict.fromkeys(each.provenance.grouping for each in manifests))
    known = [kind for kind in kinds if kind is not None]
    return None if len(known) < len(kinds) else " or ".join(known)


def _own_names(manifest: Manifest, labels: tuple[str, ...], grouping: str | None) -> pl.DataFrame:
    same = {label: label for label in manifest.labels}
    table = manifest.table.with_columns(
        remap_distributions(manifest.table["distribution"], manifest.labels, labels, same),
    )
    if grouping not in (None, "speaker") and manifest.provenance.grouping == "speaker":
        # Where another corpus knows groups only, a speaker is a group of one.
        table = table.with_columns(pl.col("speaker").alias("group"))
    return table.with_columns(
        pl.concat_str([pl.col("corpus"), pl.col(column)], separator="/").alias(column)
        for column in _OWN
    )


def _provenance(
    manifests: Sequence[Manifest],
    sources: Sequence[str],
    labels: tuple[str, ...],
    grouping: str | None,
) -> Provenance:
    known = [each.provenance for each in manifests]
    notes = [
        f"{source}: {note}"
        for source, each in zip(sources, known, strict=True)
        for note in each.notes
    ]
    for label in labels:
        having = [
            source
            for source, each in zip(sources, manifests, strict=True)
            if (each.table["label"] == label).any()
        ]
        if 0 < len(having) < len(manifests):
            notes.append(
                f"Only {', '.join(having)} has the label {label}: who tells the corpora apart "
                f"knows it. Map the labels to shared ones with koser map."
            )
    if grouping is None:
        notes.append("The speakers of at least one of the corpora are unknown.")
    return Provenance(
        adapter="+".join(each.adapter for each in known),
        root="; ".join(each.root for each in known),
        labels=labels,
        label_policy="; ".join(
            f"{source}: {each.label_policy}" for source, each in zip(sources, known, strict=True)
        ),
        grouping=grouping,
        n_rows_in=sum(each.n_rows_in for each in known),
        left_out=tuple(
            replace(row, source=f"{source}/{row.source}")
            for source, each in zip(sources, known, strict=True)
            for row in each.left_out
        ),
        unlisted=tuple(path for each in known for path in each.unlisted),
        notes=tuple(notes),
        is_synthetic=any(each.is_synthetic for each in known),
    )
