"""A hint whether two groups are one person, from how a pretrained encoder hears them.

The mean of an encoder's states over a few dozen utterances carries the voice, and room and
microphone with it. Two groups that are as alike as two halves of one group may be one person;
or two who shared a room. That is why this is a hint and no proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.data.assignment import codes
from koser.data.audit.results import Check, Evidence, counted
from koser.data.audit.sharing import Audited
from koser.engines.local import LocalEngine
from koser.features.extraction import Progress, clips_of, extract_in_batches
from koser.features.speech.extractors import StatisticsExtractor
from koser.features.speech.loading import EncoderOptions, load_encoder
from koser.features.store import FeatureStore

# Utterances of a group that are heard: the mean of more is hardly another one.
MAX_PER_GROUP = 40
MIN_PER_GROUP = 8  # four in each half
# Share of the groups whose halves must be nearer to each other than to any other group: an
# encoder that hears no voices sees likeness everywhere.
MIN_RECOGNISED = 0.5


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike groups sound.

    Attributes
    ----------
    names : tuple[str, ...]
        Groups with enough utterances.
    within : np.ndarray [shape=(n_groups,)]
        Cosine between the means of the two halves of each group.
    across : np.ndarray [shape=(n_groups, n_groups)]
        Mean cosine between a half of one group and a half of another; NaN on the diagonal.
    """

    names: tuple[str, ...]
    within: np.ndarray
    across: np.ndarray

    @property
    def recognised(self) -> float:
        """Share of groups whose own halves are nearer than any other group, in [0, 1]."""
        others = np.where(np.isnan(self.across), -2, self.across).max(axis=1)
        return float(np.mean(self.within > others))

    def suspects(self) -> list[tuple[int, int]]:
        """Pairs that are nearest to each other, and as alike as the halves of a usual group."""
        nearest = np.where(np.isnan(self.across), -2, self.across).argmax(axis=1)
        usual = float(np.median(self.within))
        return [
            (first, int(second))
            for first, second in enumerate(nearest)
            if first < second and nearest[second] == first and self.across[first, second] >= usual
        ]


def compare_groups(embeddings: np.ndarray, groups: np.ndarray, names: tuple[str, ...]) -> Likeness:
    """Compare groups by the means of their utterances' embeddings.

    Parameters
    ----------
    embeddings : np.ndarray [shape=(n_utterances, width)]
        One per utterance; standardised here, value by value, over all utterances.
    groups : np.ndarray [shape=(n_utterances,)]
        Group of each, as its place in `names`.
    names : tuple[str, ...]
        The groups; every one has at least two utterances.

    Returns
    -------
    Likeness
        The halves of a group are its utterances by turns.
    """
    spread = embeddings.std(axis=0)
    scaled = (embeddings - embeddings.mean(axis=0)) / np.where(spread > 0, spread, 1)
    halves = []
    for half in (0, 1):
        rows = [np.flatnonzero(groups == group)[half::2] for group in range(len(names))]
        stacked = np.stack([scaled[each].mean(axis=0) for each in rows])
        halves.append(stacked / np.linalg.norm(stacked, axis=1, keepdims=True))
    cosine = halves[0] @ halves[1].T
    across = (cosine + cosine.T) / 2
    np.fill_diagonal(across, np.nan)
    return Likeness(names, np.diagonal(cosine).copy(), across)


def check_voices(
    audited: Audited,
    encoder: str,
    *,
    store_root: Path,
    n_workers: int = 1,
    progress: Progress | None = None,
) -> Check:
    """Look for one person under two names on both sides of a split.

    Parameters
    ----------
    audited : Audited
        The utterances; without a split every two groups are compared.
    encoder : str
        Hub id or folder of a speech encoder.
    store_root, n_workers, progress
        As in `koser.features.extraction.extract_in_batches`.

    Raises
    ------
    EncoderError
        If the encoder cannot be loaded.
    AudioError
        If a file cannot be read.
    """
    name, column = "same_person", audited.manifest.grouping_column
    if column is None:
        return Check(name, "not_run", "unknown", "Speakers are not known of any utterance.")
    table = audited.manifest.table.sort("id")
    code = codes(table[column])
    chosen = np.concatenate([*_some_of_each(code), np.zeros(0, np.int64)])
    kept = np.unique(code[chosen])
    if len(kept) < 3:
        what = f"Fewer than 3 {column}s have {MIN_PER_GROUP} utterances: too few to compare voices."
        return Check(name, "not_run", "too_few", what)
    heard = table[chosen.tolist()]
    loaded = load_encoder(EncoderOptions(name=encoder))
    extractor = StatisticsExtractor(loaded, dtype="float16")
    keys = extract_in_batches(
        clips_of(heard), heard["duration"].to_numpy(), extractor, store_root,
        engine=LocalEngine(n_workers), progress=progress,
    )  # fmt: skip
    store = FeatureStore(store_root, extractor.describe(), dtype="float16")
    # the mean over time of every state, one after the other
    embeddings = np.stack([store.read(key)[:, 0].astype(np.float64).ravel() for key in keys])
    groups = np.searchsorted(kept, code[chosen])
    names = tuple(heard[column].gather(np.unique(groups, return_index=True)[1].tolist()))
    return _judge(audited, compare_groups(embeddings, groups, names), column, encoder)


def _some_of_each(code: np.ndarray) -> Iterator[np.ndarray]:
    for group in range(int(code.max()) + 1):
        rows = np.flatnonzero(code == group)
        if len(rows) >= MIN_PER_GROUP:
            places = np.linspace(0, len(rows) - 1, min(len(rows), MAX_PER_GROUP))
            yield rows[places.astype(np.int64)]


def _judge(audited: Audited, likeness: Likeness, column: str, encoder: str) -> Check:
    suspects = [
        (likeness.names[a], likeness.names[b], f"{likeness.across[a, b]:.3f}")
        for a, b in likeness.suspects()
        if _is_across(audited, column, likeness.names[a], likeness.names[b])
    ]
    usual = float(np.median(likeness.within))
    facts = {
        "n_pairs": len(suspects),
        "usual": usual,
        "recognised": likeness.recognised,
        "n_groups": len(likeness.names),
        "encoder": Path(encoder).name,
    }
    if likeness.recognised < MIN_RECOGNISED:
        what = (
            f"The encoder recognises {likeness.recognised:.0%} of the {column}s by their other "
            f"half: it hears no voices here, so it cannot tell."
        )
        return Check("same_person", "not_run", "cannot_tell", what, facts)
    evidence = Evidence.of((column, column, "cosine"), suspects)
    basis = f"as two halves of one ({usual:.2f}, {len(likeness.names)} {column}s)"
    where = "" if audited.split is None else " on both sides"
    if suspects:
        what = f"A hint: {counted(len(suspects), 'pair')} of {column}s{where} as alike {basis}."
        return Check("same_person", "warn", "alike", what, facts, evidence)
    what = f"A hint: no two {column}s{where} as alike {basis}."
    return Check("same_person", "pass", "unlike", what, facts)


def _is_across(audited: Audited, column: str, first: str, second: str) -> bool:
    """Whether one is learnt from where the other is tested, in any fold."""
    if audited.split is None:
        return True
    values = audited.manifest.table[column]
    for learnt, tested in audited.cross_rows():
        sides = set(values.gather(learnt)), set(values.gather(tested))
        if (first in sides[0] and second in sides[1]) or (second in sides[0] and first in sides[1]):
            return True
    return False
