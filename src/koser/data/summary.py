"""What a manifest holds, in numbers: what `koser info` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from koser.data.manifest import Manifest
from koser.errors import UndefinedMetricError
from koser.evaluation.agreement import fleiss_kappa

LONG = 5.0  # seconds; what a system that cuts there would lose


@dataclass(frozen=True)
class Durations:
    """Lengths of the utterances.

    Attributes
    ----------
    hours : float
        All together.
    mean, shortest, longest : float
        Seconds.
    share_long : float
        Share of the utterances that last longer than `LONG`, in [0, 1].
    """

    hours: float
    mean: float
    shortest: float
    longest: float
    share_long: float


@dataclass(frozen=True)
class Agreement:
    """How far the raters agree.

    Attributes
    ----------
    part : str
        A release, or ``"all"``.
    kappa : float or None
        Fleiss' kappa; None where it is undefined, as when all votes are for one label.
    n_utterances, n_raters : int
        What it rests on: utterances rated by the most common number of raters.
    """

    part: str
    kappa: float | None
    n_utterances: int
    n_raters: int


@dataclass(frozen=True)
class Summary:
    """Counts, durations and agreement of a manifest.

    Attributes
    ----------
    adapter, label_policy : str
        As in the manifest's provenance.
    is_synthetic : bool
        Whether the speech was made by a machine.
    n_rows_in, n_utterances : int
        Rows read and kept.
    left_out : Mapping[str, int]
        Rows per reason for leaving them out, most frequent first.
    n_unlisted : int
        Audio files that no row names.
    per_label : Mapping[str, int]
        Utterances of every label, in the manifest's order; 0 where none is left.
    grouping : str or None
        What stands for a speaker.
    per_group : Mapping[str, int]
        Utterances of each of them, most first; empty without a grouping.
    per_release, per_gender : Mapping[str, int]
        Utterances, most first; empty where the corpus has no such column.
    durations : Durations
        Lengths of the utterances.
    formats : Mapping[str, int]
        Utterances per sampling rate and channels, such as ``"48000 Hz, 1 channel"``.
    agreement : tuple[Agreement, ...]
        Over all and per release; empty without votes.
    notes : tuple[str, ...]
        As in the manifest's provenance.
    """

    adapter: str
    label_policy: str
    is_synthetic: bool
    n_rows_in: int
    n_utterances: int
    left_out: Mapping[str, int]
    n_unlisted: int
    per_label: Mapping[str, int]
    grouping: str | None
    per_group: Mapping[str, int]
    per_release: Mapping[str, int]
    per_gender: Mapping[str, int]
    durations: Durations
    formats: Mapping[str, int]
    agreement: tuple[Agreement, ...]
    notes: tuple[str, ...]

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Everything as ``(section, name, value)``, in reading order; sections are contiguous."""
        yield "corpus", "adapter", self.adapter
        yield "corpus", "labels from", self.label_policy
        if self.is_synthetic:
            yield "corpus", "speech", "SYNTHETIC: made by a machine"
        yield "rows", "read", f"{self.n_rows_in:,}"
        yield "rows", "kept", f"{self.n_utterances:,}"
        for reason, count in self.left_out.items():
            yield "rows", f"left out: {reason}", f"{count:,}"
        yield "rows", "audio files without a row", f"{self.n_unlisted:,}"
        yield from self._counts("label", self.per_label)
        yield "speakers", "told apart by", self.grouping or "nothing (unknown)"
        yield "speakers", "number", f"{len(self.per_group):,}" if self.grouping else "unknown"
        yield from self._counts(self.grouping or "speakers", self.per_group)
        yield from self._counts("release", self.per_release)
        yield from self._counts("gender", self.per_gender)
        durations = self.durations
        yield "duration", "total", f"{durations.hours:.2f} h"
        yield "duration", "mean", f"{durations.mean:.2f} s"
        yield "duration", "shortest", f"{durations.shortest:.2f} s"
        yield "duration", "longest", f"{durations.longest:.2f} s"
        yield "duration", f"longer than {LONG:g} s", f"{durations.share_long:.1%}"
        yield from self._counts("audio", self.formats)
        for each in self.agreement:
            kappa = "undefined" if each.kappa is None else f"{each.kappa:.3f}"
            basis = f"{each.n_utterances:,} utterances, {each.n_raters} raters"
            yield "agreement (Fleiss' kappa)", each.part, f"{kappa} ({basis})"
        for number, note in enumerate(self.notes, start=1):
            yield "notes", str(number), note

    def _counts(self, section: str, counts: Mapping[str, int]) -> Iterator[tuple[str, str, str]]:
        for name, count in counts.items():
            yield section, name, f"{count:,} ({count / self.n_utterances:.1%})"


def summarise(manifest: Manifest) -> Summary:
    """Count what `manifest` holds.

    Parameters
    ----------
    manifest : Manifest
        With at least one utterance, as every adapter's.

    Returns
    -------
    Summary
        Nothing in it depends on the order of the rows.
    """
    table, provenance = manifest.table, manifest.provenance
    per_label = _value_counts(table["label"])
    column = manifest.grouping_column
    channels = pl.col("n_channels")
    audio_format = pl.format(
        "{} Hz, {} channel{}",
        "sampling_rate",
        channels,
        pl.when(channels == 1).then(pl.lit("")).otherwise(pl.lit("s")),
    )
    return Summary(
        adapter=provenance.adapter,
        label_policy=provenance.label_policy,
        is_synthetic=provenance.is_synthetic,
        n_rows_in=provenance.n_rows_in,
        n_utterances=table.height,
        left_out=provenance.left_out_by_reason(),
        n_unlisted=len(provenance.unlisted),
        per_label={label: per_label.get(label, 0) for label in manifest.labels},
        grouping=provenance.grouping,
        per_group={} if column is None else _value_counts(table[column]),
        per_release=_value_counts(table["release"]),
        per_gender=_value_counts(table["gender"]),
        durations=_durations(table["duration"].to_numpy()),
        formats=_value_counts(table.select(audio_format).to_series()),
        agreement=tuple(_agreements(table)),
        notes=provenance.notes,
    )


def _value_counts(values: pl.Series) -> dict[str, int]:
    """Count of each value, most first, then by name; nulls are no value."""
    counts = values.drop_nulls().value_counts(name="count")
    ordered = counts.sort("count", values.name, descending=[True, False])
    return {str(name): int(count) for name, count in ordered.iter_rows()}


def _durations(duration: np.ndarray) -> Durations:
    return Durations(
        hours=float(duration.sum()) / 3600,
        mean=float(duration.mean()),
        shortest=float(duration.min()),
        longest=float(duration.max()),
        share_long=float(np.mean(duration > LONG)),
    )


def _agreements(table: pl.DataFrame) -> Iterator[Agreement]:
    rated = table.filter(pl.col("votes").list.len() > 1)
    if not rated.height:
        return
    yield _agreement("all", rated)
    releases = rated["release"].drop_nulls().unique().sort()
    if len(releases) > 1:
        for release in releases:
            yield _agreement(release, rated.filter(pl.col("release") == release))


def _agreement(part: str, rated: pl.DataFrame) -> Agreement:
    # kappa needs equally many votes everywhere: the most common number, the larger of a tie
    n_votes = rated["votes"].list.len()
    n_raters = int(n_votes.mode().max())  # type: ignore[arg-type]  # of integers, an integer
    complete = rated.filter(n_votes == n_raters)
    votes = complete.select("id", "votes").explode("votes").unnest("votes")
    counts = votes.group_by("id", "label").len().pivot("label", index="id", values="len")
    matrix = counts.drop("id").fill_null(0).to_numpy().astype(np.int64)
    try:
        kappa: float | None = fleiss_kappa(matrix)
    except UndefinedMetricError:
        kappa = None
    return Agreement(part, kappa, complete.height, n_raters)
