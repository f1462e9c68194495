"""Confound probes: labels recognised by anything but the voice, out of fold.

A probe learns one thing about the train and val utterances of a split, such as their
release, and guesses the labels of its test utterances. Where it beats chance, so may a
system, without hearing an emotion. Duration and level are part of how emotions sound, so
beating chance is no error there; but a score should be read beside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from koser.data.assignment import TEST, TRAIN, VAL, codes, crossed_share
from koser.data.audit.classifiers import (
    UNKNOWN,
    FloatArray,
    HashedTexts,
    IntArray,
    binned,
    credits_of,
    ridge_beliefs,
    table_beliefs,
)
from koser.data.audit.results import Probe, Verdict, counted
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.evaluation.chance import AboveChance, uar_above_chance

# A probe is an alarm if chance would reach it once in a thousand audits of that probe, about
# once in a hundred of all; and if it matters: large corpora show any trifle.
ALPHA = 0.001
MARGIN = 0.02  # UAR above chance
MIN_FREEDOM = 4  # degrees of freedom below which the test over speakers finds nothing

# Of rows that are read closely, over all folds: the two dearer classifiers take a sample.
MAX_SAMPLED_ROWS = 400_000
MIN_SAMPLE, MAX_SAMPLE = 5_000, 50_000

# What the manifest says of an utterance that cannot be heard in a voice: it can fail.
STATED = ("release", "age", "gender")
MEASURED = ("level", "bandwidth", "leading_silence")
_NAMES = ("corpus", "release", "gender")  # values without an order

# How likely each label is for each test row: (train rows, test rows) -> (n_test, n_labels).
Learner = Callable[[IntArray, IntArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Probed:
    """Utterances and folds that all probes share.

    Attributes
    ----------
    manifest : Manifest
        The utterances.
    parts : np.ndarray [shape=(n_folds, n_utterances)]
        Who is learnt from and who is tested.
    y : np.ndarray [shape=(n_utterances,)]
        Labels as numbers from 0.
    clusters : np.ndarray [shape=(n_utterances,)] or None
        What stands for a speaker, as numbers; None where nothing does.
    """

    manifest: Manifest
    parts: IntArray
    y: IntArray
    clusters: IntArray | None

    @cached_property
    def crossed(self) -> float:
        """How far the folds are a cross-validation: see `crossed_share`."""
        return crossed_share(self.parts)

    @cached_property
    def rank(self) -> IntArray:
        """Place of each row in the order of the ids."""
        return codes(self.manifest.table["id"])

    @classmethod
    def of(cls, manifest: Manifest, parts: IntArray) -> Probed:
        """The utterances of `manifest` under the folds of `parts`."""
        place = {label: number for number, label in enumerate(manifest.labels)}
        y = np.array([place[label] for label in manifest.table["label"]], np.int64)
        column = manifest.grouping_column
        clusters = None if column is None else codes(manifest.table[column])
        return cls(manifest, parts, y, clusters)

    def run(self, name: str, learner: Learner, *, sample: IntArray | None = None) -> Probe:
        """Learn and test in every fold; all test utterances are scored together."""
        tested, believed = [], []
        for part in self.parts:
            train = np.flatnonzero((part == TRAIN) | (part == VAL))
            test = np.flatnonzero(part == TEST)
            if sample is not None:
                is_sampled = np.zeros(len(self.y), bool)
                is_sampled[sample] = True
                train, test = train[is_sampled[train]], test[is_sampled[test]]
            if len(train) and len(test):
                tested.append(test)
                believed.append(learner(train, test))
        if not tested:
            return Probe(name, "not_run", note="no test utterances")
        rows, beliefs = np.concatenate(tested), np.concatenate(believed)
        # dealt are the labels of rows: in an order that the manifest's does not decide, and
        # without the last digits, which depend on it too
        order = np.argsort(self.rank[rows], kind="stable")
        rows, beliefs = rows[order], beliefs[order].round(9)
        found = uar_above_chance(
            self.y[rows],
            credits_of(beliefs),
            None if self.clusters is None else self.clusters[rows],
            beliefs=beliefs,
            crossed=self.crossed,
        )
        return self._as_probe(name, found, sample)

    def _as_probe(self, name: str, found: AboveChance, sample: IntArray | None) -> Probe:
        notes = []
        if sample is not None and len(sample) < len(self.y):
            notes.append(f"on a sample of {len(sample):,} of {len(self.y):,} utterances")
        if self.clusters is None:
            notes.append("speakers unknown: utterances count as independent")
        elif found.freedom < MIN_FREEDOM:
            of_label = counted(found.freedom + 1, "speaker")
            notes.append(f"a label has {of_label}: tested within speakers")
        return Probe(
            name,
            verdict_of(found, can_fail=name in STATED),
            found.uar.value,
            found.uar.low,
            found.uar.high,
            found.chance,
            found.p_value,
            found.n_utterances,
            None if self.clusters is None else found.n_clusters,
            "; ".join(notes),
        )

    def table(self, name: str, values: IntArray) -> Probe:
        """Probe one column of codes."""
        return self.run(name, lambda train, test: table_beliefs(values, self.y, train, test))

    def numbers(self, name: str, values: FloatArray) -> Probe:
        """Probe one column of numbers."""
        return self.run(
            name,
            lambda train, test: table_beliefs(binned(values, train), self.y, train, test),
        )

    def sample(self) -> IntArray:
        """Rows for the dearer classifiers: the same whatever the order of the manifest."""
        size = int(np.clip(MAX_SAMPLED_ROWS // len(self.parts), MIN_SAMPLE, MAX_SAMPLE))
        if size >= len(self.y):
            return np.arange(len(self.y))
        chosen = np.random.default_rng(0).choice(len(self.y), size, replace=False)
        return np.flatnonzero(np.isin(self.rank, chosen))


def verdict_of(found: AboveChance, *, can_fail: bool = False) -> Verdict:
    """What a probe's result means.

    Parameters
    ----------
    found : AboveChance
        The result.
    can_fail : bool
        Whether it is an error, and not only a warning, to come more than half of the way
        from chance to perfect.
    """
    value = found.uar.value or 0.0
    is_blatant = value >= (1 + found.chance) / 2
    # of few speakers no test can tell a release from a person
    is_above = found.p_value <= ALPHA or (is_blatant and found.freedom < MIN_FREEDOM)
    if not is_above or value - found.chance < MARGIN:
        return "pass"
    return "fail" if can_fail and is_blatant else "warn"


def run_probes(probed: Probed, measured: Mapping[str, FloatArray]) -> tuple[Probe, ...]:
    """Every probe that the manifest and the measurements allow.

    Parameters
    ----------
    probed : Probed
        The utterances and their folds.
    measured : Mapping[str, np.ndarray] [shape=(n_utterances,)]
        Those of `MEASURED` that are known; NaN where an utterance could not be read.
    """
    columns = _columns(probed.manifest, measured)
    probes = [_single(probed, name, columns.get(name)) for name in (*STATED, "duration", *MEASURED)]
    probes.append(probed.numbers("file_order", file_order(probed.manifest)))
    return (*probes, *_baselines(probed, columns))


def probe_baselines(
    manifest: Manifest, split: Split, measured: Mapping[str, FloatArray] | None = None
) -> tuple[Probe, ...]:
    """What stands beside every score: metadata alone and text alone, under the same split.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    split : Split
        Who is learnt from and who is tested.
    measured : Mapping[str, np.ndarray], optional
        As in `run_probes`; metadata includes what is known of it.

    Returns
    -------
    tuple[Probe, ...]
        ``"metadata"`` and ``"text"``; their verdict is ``"not_run"`` where the manifest has
        nothing of the kind.
    """
    probed = Probed.of(manifest, split.parts(manifest))
    return tuple(_baselines(probed, _columns(manifest, measured or {})))


def file_order(manifest: Manifest) -> FloatArray:
    """Place of each file among its speaker's, by name, from 0 to 1.

    The names of folders do not count: they are often the labels. Numbers in a name count as
    numbers.
    """
    table = manifest.table
    column = manifest.grouping_column
    groups = [None] * len(table) if column is None else table[column].to_list()
    starts = [start or 0.0 for start in table["start"]]
    keys = [
        (group or "", _natural(os.path.basename(path)), start)
        for group, path, start in zip(groups, table["path"], starts, strict=True)
    ]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    owner = np.zeros(len(keys), np.int64) if column is None else codes(table[column])
    sizes = np.bincount(owner)
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys))
    first = np.cumsum(sizes) - sizes
    place: FloatArray = (rank - first[owner]) / np.maximum(sizes[owner] - 1, 1)
    return place


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def _columns(manifest: Manifest, measured: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """What is known of the utterances, as numbers; NaN for a missing value."""
    table = manifest.table
    columns: dict[str, FloatArray] = {}
    for name in _NAMES:
        # Of a single corpus its name says nothing, and is not listed as if it were tried.
        if table[name].null_count() < len(table) and (name != "corpus" or _has_several(table)):
            ranks = table[name].rank("dense").cast(pl.Float64)
            columns[name] = ranks.fill_null(float("nan")).to_numpy()
    if table["age"].null_count() < len(table):
        columns["age"] = table["age"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    columns["duration"] = table["duration"].to_numpy()
    return {**columns, **{name: measured[name] for name in MEASURED if name in measured}}


def _has_several(table: pl.DataFrame) -> bool:
    return table["corpus"].n_unique() > 1


def _single(probed: Probed, name: str, values: FloatArray | None) -> Probe:
    if values is None:
        why = "the sound was not read" if name in MEASURED else "not known of any utterance"
        return Probe(name, "not_run", note=why)
    if not _varies(values):
        return Probe(name, "not_run", note="the same everywhere")
    if name in _NAMES:
        return probed.table(name, _as_codes(values))
    return probed.numbers(name, values)


def _baselines(probed: Probed, columns: Mapping[str, FloatArray]) -> Iterator[Probe]:
    sample = probed.sample()

    def by_metadata(train: IntArray, test: IntArray) -> FloatArray:
        rows = np.concatenate([train, test])
        coded = [
            (_as_codes(values) if name in _NAMES else binned(values, train))[rows]
            for name, values in columns.items()
        ]
        beliefs = ridge_beliefs(coded, probed.y[rows], np.arange(len(train)))
        return beliefs[len(train) :]

    probe = probed.run("metadata", by_metadata, sample=sample)
    varied = [name for name, values in columns.items() if _varies(values)]
    used = f"from {', '.join(varied)}".replace("_", " ")
    yield _with_note(probe, used)
    texts = probed.manifest.table["text"]
    if texts.null_count() == len(texts):
        yield Probe("text", "not_run", note="no utterance has a text")
        return
    chosen: list[str | None] = [None] * len(texts)
    for row, text in zip(sample.tolist(), texts.gather(sample.tolist()), strict=True):
        chosen[row] = text
    hashed = HashedTexts.of(chosen)
    yield probed.run(
        "text", lambda train, test: hashed.beliefs(probed.y, train, test), sample=sample
    )


def _varies(values: FloatArray) -> bool:
    known = values[np.isfinite(values)]
    return len(known) > 0 and bool(known.min() < known.max())


def _as_codes(values: FloatArray) -> IntArray:
    coded: IntArray = np.where(np.isfinite(values), values, UNKNOWN).astype(np.int64)
    return coded


def _with_note(probe: Probe, note: str) -> Probe:
    return replace(probe, note="; ".join(filter(None, [note, probe.note])))
