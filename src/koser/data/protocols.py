"""The evaluation protocols: which utterances a system may learn from, and which test it.

Each protocol is one function from utterances and options to a `Plan`. What they share,
filling parts in order, dealing groups by label and holding out validation, is in
`koser.data.assignment`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from koser.config import Config
from koser.data.assignment import (
    LEFT_OUT,
    TEST,
    TRAIN,
    VAL,
    IntArray,
    agree_on_scripts,
    assign_stratified,
    codes,
    count_table,
    hold_out,
    shuffled_order,
    take_in_order,
)
from koser.data.fold_lists import read_fold_list
from koser.data.manifest import Manifest
from koser.data.scripts import cluster_scripts, has_script, largest_cluster
from koser.errors import SplitError

# Rows a split may have (folds × utterances): about 2 GB in memory.
MAX_ROWS = 20_000_000

Share = Annotated[float, Field(ge=0, lt=1)]


class SplitOptions(Config):
    """How a protocol is carried out."""

    seed: int = Field(42, ge=0, lt=2**32)
    # Share of all utterances; of no meaning to protocols that make folds.
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    # Share of all utterances, in folds of what the fold does not test; 0: no validation.
    val_fraction: Share = 0.1
    # Folds of kfold (5 where None), or of groups in speaker+script (one split where None).
    n_folds: int | None = Field(None, ge=1)
    # Folds of scripts in speaker+script, where it makes folds; as many as n_folds if None.
    n_script_folds: int | None = Field(None, ge=2)

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> SplitOptions:
        if self.test_fraction + self.val_fraction >= 1:
            raise ValueError("test_fraction + val_fraction must leave something to train on")
        return self


@dataclass(frozen=True)
class Utterances:
    """What the protocols see of a manifest, in the order of the ids.

    Attributes
    ----------
    table : pl.DataFrame
        The manifest's table, sorted by id.
    labels : np.ndarray [shape=(n_utterances,)]
        Codes of the labels.
    groups : np.ndarray [shape=(n_utterances,)] or None
        Codes of what stands for a speaker.
    grouping : str
        What that is; ``"utterance"`` where nothing is known.
    """

    table: pl.DataFrame
    labels: IntArray
    groups: IntArray | None
    grouping: str

    @classmethod
    def of(cls, manifest: Manifest) -> Utterances:
        """The utterances of `manifest`."""
        table = manifest.table.sort("id")
        column = manifest.grouping_column
        groups = None if column is None else codes(table[column])
        return cls(
            table, codes(table["label"]), groups, manifest.provenance.grouping or "utterance"
        )

    def __len__(self) -> int:
        return self.table.height

    def known_groups(self, protocol: str) -> IntArray:
        """`groups`, or an error that says how to supply them."""
        if self.groups is None:
            raise SplitError(
                f"Protocol '{protocol}' needs to know who speaks, and none of the {len(self)} "
                f"utterances has a speaker or a group. Supply them: koser prepare folder "
                f"--speaker-pattern, the speaker column of koser prepare table, or for AI Hub "
                f"263 preprocess.py on the raw folder, which keeps age and gender."
            )
        return self.groups


@dataclass(frozen=True)
class Plan:
    """What a protocol decides.

    Attributes
    ----------
    parts : np.ndarray [shape=(n_folds, n_utterances)]
        Part of each utterance, in the order of the ids.
    grouping : str
        What no two parts share; ``"utterance"`` if only that.
    notes : tuple[str, ...]
        What a reader should know, one sentence each.
    """

    parts: IntArray
    grouping: str
    notes: tuple[str, ...] = ()


Protocol = Callable[[Utterances, SplitOptions], Plan]


def plan_random(data: Utterances, options: SplitOptions) -> Plan:
    """Utterances at random, stratified by label. Speakers and scripts are shared."""
    weights = {TRAIN: 1.0, VAL: options.val_fraction, TEST: options.test_fraction}
    weights[TRAIN] -= weights[VAL] + weights[TEST]
    rng = np.random.default_rng(options.seed)
    shares = [weights[part] for part in sorted(weights)]
    part = assign_stratified(np.arange(len(data)), data.labels, shares, rng)
    return Plan(part[None], "utterance")


def plan_speaker(data: Utterances, options: SplitOptions) -> Plan:
    """The document's speaker-independent split."""
    part = _document_rule(data.known_groups("speaker"), options)
    return Plan(part[None], data.grouping)


def plan_session(data: Utterances, options: SplitOptions) -> Plan:
    """The document's rule with sessions in place of speakers; with `n_folds`, folds of them.

    Who takes part in several sessions is noted, not kept together: where everyone meets
    everyone, that would leave one part.
    """
    sessions = data.table["session"]
    if n_missing := sessions.null_count():
        raise SplitError(
            f"Protocol 'session' needs sessions, and {n_missing} of {len(data)} utterances have "
            f"none. Supply the session column of koser prepare table, or split by speaker."
        )
    units = codes(sessions)
    notes = _several_sessions_notes(data, units)
    if options.n_folds is None:
        return Plan(_document_rule(units, options)[None], "session", notes)
    fold = _folds(units, data.labels, options.n_folds, "session", options.seed)
    return Plan(_cross_validate(fold, units, data.labels, options), "session", notes)


def plan_speaker_script(data: Utterances, options: SplitOptions) -> Plan:
    """Neither a group nor a script in two parts; what cannot be kept is left out."""
    groups = data.known_groups("speaker+script")
    scripts, notes = _scripts(data.table["text"])
    n_folds = options.n_folds or 1
    if n_folds == 1:
        if options.n_script_folds is not None:
            raise SplitError("n_script_folds is for folds. Give n_folds (--folds) too.")
        rng = np.random.default_rng(options.seed)
        part = _document_rule(groups, options)
        parts = agree_on_scripts(part, scripts, data.labels, rng)[None]
    else:
        parts = _cells(data.labels, groups, scripts, options)
    notes += _left_out_notes(parts, data.table["label"])
    return Plan(parts, f"{data.grouping}+script", notes)


def plan_leave_one_speaker_out(data: Utterances, options: SplitOptions) -> Plan:
    """A fold per speaker or group, in the order of their names."""
    groups = data.known_groups("leave_one_speaker_out")
    return Plan(_cross_validate(groups, groups, data.labels, options), data.grouping)


def plan_kfold(data: Utterances, options: SplitOptions) -> Plan:
    """Folds of whole groups (utterances if none is known), stratified by label."""
    n_folds = 5 if options.n_folds is None else options.n_folds
    units = np.arange(len(data)) if data.groups is None else data.groups
    fold = _folds(units, data.labels, n_folds, data.grouping, options.seed)
    return Plan(_cross_validate(fold, data.groups, data.labels, options), data.grouping)


def plan_fixed(data: Utterances, options: SplitOptions, *, name: str) -> Plan:
    """The parts or folds of a list; what it does not say about validation is held out."""
    listed = read_fold_list(name).look_up(data.table)
    notes = listed.notes
    if listed.value == "fold":
        parts = _cross_validate(listed.values, data.groups, data.labels, options)
    else:
        parts = listed.values[None]
        if options.val_fraction and not (parts == VAL).any():
            _hold_out_of_train(parts[0], data.groups, data.labels, options, fold=0)
            notes += ("The list names no val; it is held out of its train.",)
    is_grouped = data.groups is not None and not _shares(data.groups, parts)
    return Plan(parts, data.grouping if is_grouped else "utterance", notes)


PROTOCOLS: Mapping[str, Protocol] = {
    "random": plan_random,
    "speaker": plan_speaker,
    "speaker+script": plan_speaker_script,
    "session": plan_session,
    "leave_one_speaker_out": plan_leave_one_speaker_out,
    "kfold": plan_kfold,
}
# Which options that count folds a protocol reads; the others refuse them.
FOLD_OPTIONS = {
    "speaker+script": {"n_folds", "n_script_folds"},
    "session": {"n_folds"},
    "kfold": {"n_folds"},
}


def _document_rule(groups: IntArray, options: SplitOptions) -> IntArray:
    sizes = np.bincount(groups)
    order = shuffled_order(len(sizes), options.seed)
    wanted = {TEST: options.test_fraction, VAL: options.val_fraction}
    return take_in_order(sizes, order, wanted)[groups]


def _folds(units: IntArray, labels: IntArray, n_folds: int, kind: str, seed: int) -> IntArray:
    """Stratified fold of each utterance, none empty."""
    n_units = int(units.max()) + 1
    if not 2 <= n_folds <= n_units:
        raise SplitError(
            f"{n_folds} folds of {n_units} × {kind}: at least 2 folds are needed, and each "
            f"must get one {kind}."
        )
    return assign_stratified(units, labels, [1] * n_folds, np.random.default_rng(seed))[units]


def _cross_validate(
    fold: IntArray, groups: IntArray | None, labels: IntArray, options: SplitOptions
) -> IntArray:
    """Every fold is tested once; validation is held out of the others."""
    parts = _all_train(int(fold.max()) + 1, len(fold))
    for number, part in enumerate(parts):
        part[fold == number] = TEST
        _hold_out_of_train(part, groups, labels, options, fold=number)
    return parts


def _cells(
    labels: IntArray, groups: IntArray, scripts: IntArray, options: SplitOptions
) -> IntArray:
    """Test each group fold × script fold; train on what shares neither with it."""
    n_folds = options.n_folds or 1
    n_script_folds = options.n_script_folds or n_folds
    group_fold = _folds(groups, labels, n_folds, "group", options.seed)
    script_fold = _folds(scripts, labels, n_script_folds, "script", options.seed)
    parts = _all_train(n_folds * n_script_folds, len(labels))
    for number, part in enumerate(parts):
        shares_group = group_fold == number // n_script_folds
        shares_script = script_fold == number % n_script_folds
        part[shares_group | shares_script] = LEFT_OUT
        part[shares_group & shares_script] = TEST
        _hold_out_of_train(part, groups, labels, options, fold=number)
        pool = np.flatnonzero((part == TRAIN) | (part == VAL))
        if len(pool):
            rng = np.random.default_rng([options.seed, number])
            part[pool] = agree_on_scripts(part[pool], scripts[pool], labels[pool], rng)
    return parts


def _all_train(n_folds: int, n_utterances: int) -> IntArray:
    if n_folds * n_utterances > MAX_ROWS:
        raise SplitError(
            f"{n_folds:,} folds of {n_utterances:,} utterances are too many to keep. "
            f"Use protocol 'kfold', which puts several groups into a fold."
        )
    return np.full((n_folds, n_utterances), TRAIN)


def _hold_out_of_train(
    part: IntArray, groups: IntArray | None, labels: IntArray, options: SplitOptions, *, fold: int
) -> None:
    """Turn some of the training pool of `part` into validation, in place."""
    pool = np.flatnonzero(part == TRAIN)
    if options.val_fraction and len(pool):
        rng = np.random.default_rng([options.seed, fold])
        of_pool = None if groups is None else groups[pool]
        part[pool[hold_out(of_pool, labels[pool], options.val_fraction, rng)]] = VAL


def _scripts(texts: pl.Series) -> tuple[IntArray, tuple[str, ...]]:
    scripts = cluster_scripts(texts.to_list())
    n_unknown = sum(not has_script(text) for text in texts)
    if n_unknown == len(texts):
        raise SplitError(
            f"Protocol 'speaker+script' needs texts, and none of the {len(texts)} utterances has "
            f"one. Supply the text column of koser prepare table, or split by speaker."
        )
    n_scripts = int(scripts.max()) + 1 - n_unknown
    notes = [
        f"{len(texts) - n_unknown} texts are {n_scripts} scripts; the largest holds "
        f"{largest_cluster(scripts)} utterances."
    ]
    if n_unknown:
        notes.append(
            f"{n_unknown} of {len(texts)} utterances have no text: what script they read is "
            f"not controlled."
        )
    return scripts, tuple(notes)


def _several_sessions_notes(data: Utterances, sessions: IntArray) -> tuple[str, ...]:
    if data.groups is None:
        return ()
    pairs = np.unique(np.stack([data.groups, sessions]), axis=1)
    n_sessions = np.bincount(pairs[0])
    if not (n_several := int((n_sessions > 1).sum())):
        return ()
    people = "speakers" if data.grouping == "speaker" else "groups"
    return (
        f"{n_several} of {len(n_sessions)} {people} are in several sessions: the split keeps "
        f"recordings apart, not people, and may train on whom it tests. Protocol 'speaker' "
        f"keeps people apart.",
    )


def _left_out_notes(parts: IntArray, labels: pl.Series) -> tuple[str, ...]:
    is_left_out = parts == LEFT_OUT
    if not is_left_out.any():
        return ()
    if len(parts) > 1:
        return (
            f"On average {is_left_out.sum() / len(parts):.0f} of {len(labels)} utterances are left "
            f"out of a fold, because they share a group or a script with another part.",
        )
    counts = labels.filter(pl.Series(is_left_out[0])).value_counts().sort("label")
    per_label = ", ".join(f"{label} {count}" for label, count in counts.iter_rows())
    return (
        f"{is_left_out.sum()} of {len(labels)} utterances are left out, because their script "
        f"belongs to another part than their group: {per_label}.",
    )


def _shares(groups: IntArray, parts: IntArray) -> bool:
    """Whether a group is in two parts of a fold, other than left out."""
    for part in parts:
        used = part != LEFT_OUT
        if ((count_table(groups[used], part[used]) > 0).sum(axis=1) > 1).any():
            return True
    return False
