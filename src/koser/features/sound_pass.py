"""Listen to every utterance once for an audit, in several processes, and remember it.

What was heard is kept in a feature store, by the content of the file: a second audit, or one
of a corpus that shares files with another, reads bytes and hears nothing again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from koser.audio.reading import Clip
from koser.audio.sound_facts import VERSION, SoundFacts, measure
from koser.engines.local import iter_map
from koser.errors import AudioError
from koser.features.arrivals import Arrival, iter_arrivals
from koser.features.extraction import Progress
from koser.features.store import FeatureStore

_DESCRIPTION = {"extractor": "sound-facts", "version": VERSION}
_DTYPE = "uint32"
_CHUNK = 32
# Below this many utterances, starting worker processes costs more than it saves.
_WORTH_WORKERS = 256


@dataclass(frozen=True, eq=False)
class Heard:
    """What listening to a manifest came to.

    Attributes
    ----------
    facts : tuple[SoundFacts or None, ...]
        Of each utterance; None where it cannot be read.
    keys : tuple[bytes, ...]
        Content of each utterance's file and segment; blank where it cannot be read.
    failures : dict[int, str]
        What was wrong, by the row of the utterance.
    n_new : int
        Utterances that were measured now; the others were known.
    """

    facts: tuple[SoundFacts | None, ...]
    keys: tuple[bytes, ...]
    failures: dict[int, str]
    n_new: int


@dataclass(frozen=True)
class _Outcome:
    key: bytes = b""
    facts: SoundFacts | None = None  # None where the store has them already
    error: str = ""


def listen(
    clips: Sequence[Clip],
    store_root: Path,
    *,
    n_workers: int = 1,
    progress: Progress | None = None,
) -> Heard:
    """Measure the sound of every clip; what the store has is not measured again.

    Parameters
    ----------
    clips : Sequence[Clip]
        The utterances.
    store_root : Path
        Folder of the feature stores.
    n_workers : int
        Processes; the result does not depend on it.
    progress : Progress, optional
        Called after each clip.

    Returns
    -------
    Heard
        With an entry for every clip: what cannot be read is among its failures.
    """
    store = FeatureStore(store_root, _DESCRIPTION, dtype=_DTYPE)
    chunks = [clips[first : first + _CHUNK] for first in range(0, len(clips), _CHUNK)]
    if len(clips) < _WORTH_WORKERS:
        n_workers = 1
    keys: list[bytes] = []
    failures: dict[int, str] = {}
    n_new = 0
    with store.writer() as writer:
        for outcomes in iter_map(partial(_Work, store_root), chunks, n_workers=n_workers):
            for outcome in outcomes:
                if outcome.error:
                    failures[len(keys)] = outcome.error
                elif outcome.facts is not None:
                    writer.append(outcome.key, outcome.facts.to_words())
                    n_new += 1
                keys.append(outcome.key)
                if progress is not None:
                    progress(len(keys), len(clips))
    facts = tuple(SoundFacts.from_words(store.read(key)) if key else None for key in keys)
    return Heard(facts, tuple(keys), failures, n_new)


class _Work:
    """What one process does to each chunk of clips; opens the store once."""

    def __init__(self, store_root: Path) -> None:
        self._store = FeatureStore(store_root, _DESCRIPTION, dtype=_DTYPE)

    def __call__(self, clips: Sequence[Clip]) -> list[_Outcome]:
        return [self._hear(arrival) for arrival in iter_arrivals(clips)]

    def _hear(self, arrival: Arrival) -> _Outcome:
        try:
            key = arrival.key()
            if key in self._store:
                return _Outcome(key)
            rate = arrival.probe().sampling_rate
            waveform = arrival.load(sampling_rate=rate)
        except AudioError as error:
            return _Outcome(error=str(error))
        return _Outcome(key, measure(waveform, rate))
