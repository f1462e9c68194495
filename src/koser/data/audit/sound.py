"""Checks of the sound itself: unreadable files, and one recording in several utterances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from koser.audio.fingerprint import Copy, find_copies
from koser.audio.sound_facts import SoundFacts
from koser.data.assignment import TEST, TRAIN, VAL, IntArray
from koser.data.audit.classifiers import FloatArray
from koser.data.audit.results import Check, Evidence, counted
from koser.data.audit.sharing import Audited

SOUND_CHECKS = ("unreadable", "same_audio", "copied_audio", "label_conflicts")


@dataclass(frozen=True, eq=False)
class Sound:
    """What was heard of a manifest's utterances.

    Attributes
    ----------
    facts : Sequence[SoundFacts or None]
        In the order of the rows; None where an utterance cannot be read.
    failures : Mapping[int, str]
        What was wrong, by row.
    """

    facts: Sequence[SoundFacts | None]
    failures: Mapping[int, str]

    def measured(self) -> dict[str, FloatArray]:
        """Columns for the probes; NaN where an utterance cannot be read."""
        rows = [
            (each.level, each.bandwidth, each.leading_silence) if each else (np.nan,) * 3
            for each in self.facts
        ]
        columns = np.array(rows, np.float64).reshape(-1, 3).T
        return dict(zip(("level", "bandwidth", "leading_silence"), columns, strict=True))


def check_sound(audited: Audited, sound: Sound | None) -> Iterator[Check]:
    """Unreadable files, equal recordings, copies, and their labels.

    Parameters
    ----------
    audited : Audited
        The utterances and their parts.
    sound : Sound or None
        What was heard; None if nothing was listened to.
    """
    if sound is None:
        for name in SOUND_CHECKS:
            yield Check(name, "not_run", "no_audio", "The sound was not read (--no-audio).")
        return
    yield _check_readable(audited, sound)
    equal = _equal_rows(sound)
    yield _check_pairs(audited, "same_audio", equal, _equal_evidence(audited, equal))
    copies = _copies(sound)
    pairs = np.array([(copy.first, copy.second) for copy in copies], np.int64).reshape(-1, 2)
    yield _check_pairs(audited, "copied_audio", pairs, _copy_evidence(audited, copies))
    yield _check_labels(audited, np.concatenate([equal, pairs]))


def _check_readable(audited: Audited, sound: Sound) -> Check:
    n, n_rows = len(sound.failures), len(sound.facts)
    if not n:
        what = f"All {n_rows:,} utterances can be read."
        return Check("unreadable", "pass", "all_read", what, {"n": n_rows})
    ids = audited.manifest.table["id"]
    rows = ((ids[row], why) for row, why in sound.failures.items())
    what = f"{n:,} of {n_rows:,} utterances cannot be read: training will refuse them."
    facts = {"n": n, "n_rows": n_rows}
    return Check(
        "unreadable", "fail", "unreadable", what, facts, Evidence.of(("utterance", "error"), rows)
    )


def _equal_rows(sound: Sound) -> IntArray:
    """Pairs of rows with the same samples: each with the first of its kind [n_pairs, 2]."""
    first: dict[bytes, int] = {}
    pairs = []
    for row, facts in enumerate(sound.facts):
        if facts is not None:
            other = first.setdefault(facts.digest, row)
            if other != row:
                pairs.append((other, row))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _copies(sound: Sound) -> list[Copy]:
    """Copies that are not equal: of equal recordings only the first one is compared."""
    first = {facts.digest: row for row, facts in reversed(list(enumerate(sound.facts))) if facts}
    rows = sorted(first.values())
    known = [facts.fingerprint for row in rows if (facts := sound.facts[row]) is not None]
    return [
        Copy(rows[copy.first], rows[copy.second], copy.lag, copy.bit_error_rate, copy.overlap)
        for copy in find_copies(known)
    ]


def _components(pairs: IntArray, n_rows: int) -> IntArray:
    """Smallest row that each row is linked with, over any number of links."""
    root = np.arange(n_rows)
    while True:
        low = np.minimum(root[pairs[:, 0]], root[pairs[:, 1]])
        before = root.copy()
        np.minimum.at(root, pairs[:, 0], low)
        np.minimum.at(root, pairs[:, 1], low)
        root = root[root]
        if (root == before).all():
            return root


def _n_crossing(audited: Audited, pairs: IntArray) -> tuple[int, int]:
    """Test utterances whose recording was learnt from, and the fold where they are most."""
    if audited.parts is None or not len(pairs):
        return 0, 0
    root = _components(pairs, len(audited.manifest))
    is_copied = np.zeros(len(root), bool)
    is_copied[pairs.ravel()] = True
    best = (0, 0)
    for fold, part in enumerate(audited.parts):
        learnt = np.unique(root[((part == TRAIN) | (part == VAL)) & is_copied])
        n = int((np.isin(root, learnt) & is_copied & (part == TEST)).sum())
        best = max(best, (n, -fold))
    return best[0], -best[1]


def _check_pairs(audited: Audited, name: str, pairs: IntArray, evidence: Evidence) -> Check:
    kind = {
        "same_audio": "with the same samples as another one",
        "copied_audio": "that are a copy of another one (re-encoded, louder, trimmed)",
    }[name]
    if not len(pairs):
        what = f"No utterances {kind}."
        return Check(name, "pass", "none", what)
    root = _components(pairs, len(audited.manifest))
    rows = np.unique(pairs)
    n_sets = len(np.unique(root[rows]))
    n_crossing, fold = _n_crossing(audited, pairs)
    facts = {"n": len(rows), "n_sets": n_sets, "n_crossing": n_crossing, "fold": fold}
    what = f"{counted(len(rows), 'utterance')} {kind}, in {counted(n_sets, 'set')}"
    if n_crossing:
        what += f"; learnt from: {counted(n_crossing, 'test utterance')} (fold {fold})."
        return Check(name, "fail", "crossing", what, facts, evidence)
    what += "." if audited.parts is None else "; none is on both sides."
    return Check(name, "warn", "within", what, facts, evidence)


def _parts_of(audited: Audited, row: int) -> str:
    if audited.parts is None:
        return ""
    names = ("train", "val", "test", "left out")
    found = list(dict.fromkeys(names[part] for part in audited.parts[:, row]))
    return "/".join(found)


def _describe(audited: Audited, row: int) -> tuple[str, str, str]:
    table = audited.manifest.table
    return table["id"][row], table["label"][row], _parts_of(audited, row)


_PAIR_COLUMNS = ("first", "its label", "its part", "second", "its label", "its part")


def _equal_evidence(audited: Audited, pairs: IntArray) -> Evidence:
    rows = [
        (*_describe(audited, first), *_describe(audited, second))
        for first, second in pairs.tolist()
    ]
    return Evidence.of(_PAIR_COLUMNS, rows)


def _copy_evidence(audited: Audited, copies: Sequence[Copy]) -> Evidence:
    rows = [
        (
            *_describe(audited, copy.first),
            *_describe(audited, copy.second),
            f"{copy.lag:+.2f} s",
            f"{copy.bit_error_rate:.3f}",
        )
        for copy in copies
    ]
    return Evidence.of((*_PAIR_COLUMNS, "later by", "bit error rate"), rows)


def _check_labels(audited: Audited, pairs: IntArray) -> Check:
    name = "label_conflicts"
    if not len(pairs):
        return Check(name, "pass", "no_copies", "No recording occurs twice.")
    labels = audited.manifest.table["label"].to_numpy()
    root = _components(pairs, len(audited.manifest))
    rows = np.unique(pairs)
    sets: dict[int, set[str]] = {}
    for row in rows.tolist():
        sets.setdefault(int(root[row]), set()).add(str(labels[row]))
    conflicts = {first for first, found in sets.items() if len(found) > 1}
    facts = {"n_sets": len(sets), "n_conflicts": len(conflicts)}
    if not conflicts:
        what = f"{counted(len(sets), 'recording')} that occur several times: one label each."
        return Check(name, "pass", "agree", what, facts)
    ids = audited.manifest.table["id"]
    listed = [
        (
            ", ".join(ids[row] for row in rows.tolist() if root[row] == first),
            ", ".join(sorted(sets[first])),
        )
        for first in sorted(conflicts)
    ]
    what = (
        f"{counted(len(sets), 'recording')} that occur several times: {len(conflicts):,} with "
        f"different labels, of which at least one is wrong."
    )
    evidence = Evidence.of(("utterances", "labels"), listed)
    return Check(name, "fail", "conflict", what, facts, evidence)
