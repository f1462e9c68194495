"""What test shares with train and val by its metadata: speakers, sessions, texts, times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from koser.data.assignment import TEST, TRAIN, VAL, IntArray, codes
from koser.data.audit.classifiers import UNKNOWN
from koser.data.audit.probes import Probed
from koser.data.audit.results import Check, Evidence, Probe, Verdict, counted
from koser.data.leakage import scripts_of, worst_leak
from koser.data.manifest import Manifest
from koser.data.splits import Split

# Recordings of one person this close to each other are one session (CORPORA: sessions of
# AI Hub 263 can be rebuilt from gaps of up to ten minutes).
SESSION_GAP = 600  # seconds

_OBJECT_ID = re.compile(r"[0-9a-f]{24}", re.IGNORECASE)
_TITLES = {
    "speaker": "speakers",
    "group": "groups",
    "session": "sessions",
    "recording": "recordings",
    "script": "scripts",
    "text": "texts",
}


@dataclass(frozen=True, eq=False)
class Audited:
    """A manifest under a split, with what several checks need.

    Attributes
    ----------
    manifest : Manifest
        The utterances.
    split : Split or None
        Who plays which part; None if the corpus alone is audited.
    """

    manifest: Manifest = field(repr=False)
    split: Split | None = field(repr=False)

    @cached_property
    def parts(self) -> IntArray | None:
        """Part of every row in every fold [shape=(n_folds, n_utterances)]."""
        return None if self.split is None else self.split.parts(self.manifest)

    @cached_property
    def scripts(self) -> pl.Series:
        """Script of every row; null where it has no text."""
        return scripts_of(self.manifest)

    def promises(self, kind: str) -> bool:
        """Whether the split says that no two parts share a `kind`."""
        if self.split is None:
            return False
        kept, _, script = self.split.grouping.partition("+")
        if kind in ("script", "text"):
            return script == "script"
        return kept.partition("(")[0] == kind

    def cross_rows(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Rows that are learnt from, and rows that are tested, in every fold."""
        for part in () if self.parts is None else self.parts:
            yield np.flatnonzero((part == TRAIN) | (part == VAL)), np.flatnonzero(part == TEST)


def check_sharing(audited: Audited) -> Iterator[Check]:
    """One check for each thing that parts may share.

    Parameters
    ----------
    audited : Audited
        Without a split no check is run.
    """
    table = audited.manifest.table
    yield _check(audited, "speaker", table["speaker"])
    if table["group"].null_count() < len(table):
        yield _check(audited, "group", table["group"])
    yield _check(audited, "session", table["session"])
    if table["start"].null_count() < len(table):
        yield _check(audited, "recording", table["path"])
    yield _check(audited, "text", table["text"])
    yield _check(audited, "script", audited.scripts)
    yield check_times(audited)
    yield check_persons(audited)


def no_split(name: str) -> Check:
    """A check that asks about parts, where there are none."""
    return Check(name, "not_run", "no_split", "There is no split to check: give --split.")


def _check(audited: Audited, kind: str, values: pl.Series) -> Check:
    name, title = _TITLES[kind], _TITLES[kind].capitalize()
    if values.null_count() == len(values):
        return Check(name, "not_run", "unknown", f"{title} are not known of any utterance.")
    if audited.parts is None:
        return no_split(name)
    leak = worst_leak(kind, values, audited.parts)
    if not leak.n_shared:
        n_known = values.n_unique() - int(values.null_count() > 0)
        return Check(
            name,
            "pass",
            "none_shared",
            f"None of {counted(n_known, kind)} is on both sides.",
            {"n_known": n_known},
        )
    facts = {"n_shared": leak.n_shared, "n_utterances": leak.n_utterances, "fold": leak.fold}
    found = (
        f"On both sides: {counted(leak.n_shared, kind)}, with "
        f"{counted(leak.n_utterances, 'test utterance')} (fold {leak.fold})"
    )
    evidence = _shared_values(audited, values, leak.fold)
    if audited.promises(kind):
        what = f"{found}, although the split keeps {audited.split.grouping} apart."  # type: ignore[union-attr]  # a promise is a split's
        return Check(name, "fail", "broken_promise", what, facts, evidence)
    if kind in ("script", "text"):
        return _judged_by_memory(audited, name, values, found, facts, evidence)
    what = f"{found}; the split does not keep them apart."
    return Check(name, "warn", "shared", what, facts, evidence)


def _judged_by_memory(
    audited: Audited,
    name: str,
    values: pl.Series,
    found: str,
    facts: dict[str, int],
    evidence: Evidence,
) -> Check:
    """A shared sentence is a leak where remembering its label beats chance."""
    probe = memory_of(audited, name, values)
    scores = {"uar": probe.uar, "low": probe.low, "high": probe.high, "chance": probe.chance}
    memory = f"remembering the label of each reaches UAR {score_text(probe)}"
    if probe.verdict in ("warn", "fail"):
        what = f"{found}; {memory}, without hearing anything."
        return Check(name, "warn", "gives_labels_away", what, {**facts, **scores}, evidence)
    what = f"{found}; {memory}: nothing is given away."
    return Check(name, "pass", "shared_without_use", what, {**facts, **scores}, evidence)


def memory_of(audited: Audited, name: str, values: pl.Series) -> Probe:
    """Guess each test label from the labels of the same value in train and val."""
    if audited.parts is None:
        return Probe(name, "not_run", note="no split")
    coded = values.rank("dense").cast(pl.Int64).fill_null(UNKNOWN + 1).to_numpy() - 1
    return Probed.of(audited.manifest, audited.parts).table(name, coded)


def score_text(probe: Probe) -> str:
    """A probe's UAR with its interval and the level of chance."""
    if probe.uar is None:
        return "undefined"
    interval = "" if probe.low is None else f" [{probe.low:.3f}, {probe.high:.3f}]"
    return f"{probe.uar:.3f}{interval} (chance {probe.chance:.3f})"


def _shared_values(audited: Audited, values: pl.Series, fold: int) -> Evidence:
    learnt, tested = list(audited.cross_rows())[fold]
    names = audited.manifest.table["text"] if values.name == "script" else values
    sides = {
        side: pl.DataFrame({"value": values.gather(rows), "name": names.gather(rows)})
        .drop_nulls("value")
        .group_by("value")
        .agg(pl.len().alias(side), pl.col("name").min())
        for side, rows in (("train+val", learnt), ("test", tested))
    }
    both = sides["test"].join(sides["train+val"].drop("name"), on="value")
    both = both.sort(["test", "name"], descending=[True, False])
    rows = both.select("name", "test", "train+val").iter_rows()
    return Evidence.of((values.name, "test utterances", "train and val utterances"), rows)


def recording_times(ids: pl.Series) -> np.ndarray | None:
    """When utterances were recorded, from ids that are MongoDB's; None if one is not.

    The first 8 of the 24 hexadecimal digits are seconds since 1970.

    Returns
    -------
    np.ndarray [shape=(n_utterances,)] or None
        Seconds.
    """
    names = [name.rpartition("/")[2] for name in ids]
    if not names or any(_OBJECT_ID.fullmatch(name) is None for name in names):
        return None
    return np.array([int(name[:8], 16) for name in names], np.int64)


def check_times(audited: Audited) -> Check:
    """Whether test utterances were recorded in one sitting with learnt ones.

    The same person within ten minutes is a shared session, also where the manifest names
    none. Different persons at the same time are normal where recordings run in parallel.
    """
    name = "recording_times"
    times = recording_times(audited.manifest.table["id"])
    if times is None:
        return Check(name, "not_run", "no_times", "The ids do not tell when they were recorded.")
    if audited.parts is None:
        return no_split(name)
    column = audited.manifest.grouping_column
    groups = (
        np.zeros(len(times), np.int64) if column is None else codes(audited.manifest.table[column])
    )
    worst = (0, 0, 0)
    for fold, (learnt, tested) in enumerate(audited.cross_rows()):
        n_same = int(_is_near(times, groups, learnt, tested).sum())
        n_any = int(_is_near(times, np.zeros_like(groups), learnt, tested).sum())
        worst = max(worst, (n_same, n_any, -fold))
    n_same, n_any, fold = worst[0], worst[1], -worst[2]
    facts = {"n_same": n_same, "n_any": n_any, "fold": fold}
    if not n_same:
        what = (
            f"No test utterance was recorded within 10 minutes of a train or val utterance of the "
            f"same {column or 'corpus'} ({n_any:,} of anyone)."
        )
        return Check(name, "pass", "apart", what, facts)
    is_broken = audited.promises("session") or (column is not None and audited.promises(column))
    verdict: Verdict = "fail" if is_broken else "warn"
    what = (
        f"Recorded within 10 minutes of a train or val utterance of the same "
        f"{column or 'corpus'}: {counted(n_same, 'test utterance')} (fold {fold})."
    )
    return Check(name, verdict, "near", what, facts)


def _is_near(times: np.ndarray, groups: IntArray, learnt: IntArray, tested: IntArray) -> np.ndarray:
    """Whether a learnt row of the same group lies within a session's gap of each tested one."""
    span = int(times.max() - times.min()) + 2 * SESSION_GAP + 1
    keys = groups * span + (times - times.min())
    known = np.sort(keys[learnt])
    low = np.searchsorted(known, keys[tested] - SESSION_GAP, side="left")
    high = np.searchsorted(known, keys[tested] + SESSION_GAP, side="right")
    near: np.ndarray = high > low
    return near


def check_persons(audited: Audited) -> Check:
    """Groups on both sides that may be one person, a year older in a later release."""
    name = "same_person"
    if audited.manifest.grouping_column != "group":
        what = "Only the voices could tell whether two names are one person: give --encoder."
        return Check(name, "not_run", "needs_encoder", what)
    if audited.parts is None:
        return no_split(name)
    table = audited.manifest.table
    if any(table[column].null_count() for column in ("age", "gender", "release")):
        what = "Who may be one person is not known without age, gender and release."
        return Check(name, "not_run", "unknown", what)
    pairs = sorted(set(_birthdays(audited)))
    if not pairs:
        what = "On both sides: no groups that could be one person a year older."
        return Check(name, "pass", "no_birthdays", what)
    what = (
        f"On both sides: {counted(len(pairs), 'pair')} of groups that could be one person a year "
        f"older (same gender, next age, another release). Voices could tell: give --encoder."
    )
    return Check(
        name,
        "not_run",
        "birthdays",
        what,
        {"n_pairs": len(pairs)},
        Evidence.of(("test group", "train or val group"), pairs),
    )


def _birthdays(audited: Audited) -> Iterator[tuple[str, str]]:
    table = audited.manifest.table
    for learnt, tested in audited.cross_rows():
        kinds = ("group", "gender", "age", "release")
        of_test = table[tested.tolist()].select(kinds).unique()
        of_train = table[learnt.tolist()].select(kinds).unique()
        near = of_test.join(of_train, on="gender", suffix="_learnt").filter(
            ((pl.col("age") - pl.col("age_learnt")).abs() == 1)
            & (pl.col("release") != pl.col("release_learnt"))
        )
        yield from near.select("group", "group_learnt").iter_rows()
