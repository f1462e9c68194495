"""From clips to transcripts in the cache, whatever part of them is there already."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np

from koser.audio.reading import Clip
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import AudioError
from koser.features.arrivals import Arrival, iter_arrivals
from koser.features.extraction import Progress, describe_lost
from koser.features.residence import use_and_free
from koser.features.text.cache import CACHE_NAME, TranscriptCache
from koser.features.text.guards import Status, Transcript
from koser.features.text.kept import samples_key
from koser.features.text.transcriber import Transcriber, clips_per_batch
from koser.features.text.whisper import (
    WhisperFolder,
    WhisperOptions,
    find_whisper,
)

logger = logging.getLogger(__name__)

DEFAULT_LANGUAGE = "ko"

_CHUNK = 32  # clips that are hashed together


@dataclass(frozen=True)
class Transcription:
    """The transcripts of clips.

    Attributes
    ----------
    transcripts : tuple[Transcript, ...]
        One per clip, in order.
    options : WhisperOptions
        What was asked for, with the fingerprint of the Whisper that was used.
    n_new : int
        Clips that were transcribed, because the cache did not have them.
    """

    transcripts: tuple[Transcript, ...]
    options: WhisperOptions
    n_new: int

    @property
    def texts(self) -> list[str | None]:
        """What can be believed of each clip; None where nothing can."""
        return [transcript.usable_text for transcript in self.transcripts]

    def counts(self) -> dict[str, int]:
        """How many transcripts have each status, those that occur."""
        counts = Counter(transcript.status for transcript in self.transcripts)
        return {status.value: counts[status] for status in Status if counts[status]}


@dataclass(frozen=True)
class Spoken:
    """What is to be transcribed.

    Attributes
    ----------
    clips : Sequence[Clip]
        Where the utterances are.
    durations : Sequence[float]
        Their lengths in seconds; they decide only what is batched with what.
    languages : Sequence[str]
        ISO 639-1 code of each.
    """

    clips: Sequence[Clip]
    durations: Sequence[float]
    languages: Sequence[str]


@dataclass(frozen=True)
class _Job:
    """A clip that the cache does not have."""

    row: int
    clip: Clip
    key: bytes
    language: str


@dataclass(frozen=True)
class _Heard:
    """What was heard of a clip, and the key of its samples."""

    transcript: Transcript
    samples: bytes


# A batch's clips, and their sound or why there is none.
_Read: TypeAlias = list[tuple[_Job, np.ndarray | AudioError]]


def spoken_languages(options: WhisperOptions, known: Sequence[str | None]) -> list[str]:
    """The language of each clip: the option's, else what is known of it, else Korean."""
    return [options.language or language or DEFAULT_LANGUAGE for language in known]


def transcribe_clips(
    spoken: Spoken,
    options: WhisperOptions,
    store_root: Path,
    *,
    engine: Engine = SERIAL,
    progress: Progress | None = None,
) -> Transcription:
    """Transcribe clips, longest first, and keep every batch in the cache when it is done.

    Whisper is loaded only if something is missing, and freed before this returns.

    Parameters
    ----------
    spoken : Spoken
        What to transcribe.
    options : WhisperOptions
        With which Whisper, and how.
    store_root : Path
        Folder of the stores; the cache is in it.
    engine : Engine
        Where it is done; this process writes the cache.
    progress : Progress, optional
        Called with the number of clips done so far and their total.

    Raises
    ------
    EncoderError
        If Whisper cannot be had.
    StoreError
        If the cache cannot be read or written.
    """
    folder = engine.call(partial(_find, options, engine.n_threads))
    work = _Work(spoken, folder, store_root / CACHE_NAME, progress)
    try:
        todo = work.look_up(engine)
        batches = list(_iter_batches(todo, spoken.durations, folder.options))
        if batches:
            made = partial(
                engine.map_chunks, partial(_Hearing, folder), batches, lost=_lost_job, here=True
            )
            use_and_free(f"Whisper {options.name}", made, partial(work.keep, batches))
    finally:
        work.close()
    transcripts = tuple(work.found[row] for row in range(len(spoken.clips)))
    n_failed = sum(each.status is Status.failed for each in transcripts)
    if n_failed:
        first = next(each.error for each in transcripts if each.status is Status.failed)
        logger.warning(
            "%d of %d clips could not be transcribed and count as without text; they are tried "
            "again next time. The first: %s",
            n_failed,
            len(transcripts),
            first,
        )
    return Transcription(transcripts, folder.options, len(todo))


class _Work:
    """The state of one transcription."""

    def __init__(
        self, spoken: Spoken, folder: WhisperFolder, path: Path, progress: Progress | None
    ) -> None:
        self._spoken = spoken
        self._progress = progress
        self.found: dict[int, Transcript] = {}
        self._rows_of_key: dict[tuple[str, bytes], list[int]] = {}
        self._caches = {
            language: TranscriptCache(path, folder.describe(language))
            for language in sorted(set(spoken.languages))
        }

    def close(self) -> None:
        for cache in self._caches.values():
            cache.close()

    def look_up(self, engine: Engine) -> list[_Job]:
        """What the cache does not have, each sound once, language by language."""
        clips = self._spoken.clips
        chunks = (clips[first : first + _CHUNK] for first in range(0, len(clips), _CHUNK))
        hashed = engine.map_chunks(_Hashing, chunks, lost=_lost_clip, here=True)
        jobs: dict[str, dict[bytes, _Job]] = {language: {} for language in self._caches}
        for row, (clip, key) in enumerate(zip(clips, chain.from_iterable(hashed), strict=True)):
            language = self._spoken.languages[row]
            if isinstance(key, str):
                self._fail(language, row, key)
                continue
            self._rows_of_key.setdefault((language, key), []).append(row)
            jobs[language].setdefault(key, _Job(row, clip, key, language))
        for language, cache in self._caches.items():
            for key, transcript in cache.find(list(jobs[language])).items():
                self._keep(language, key, transcript)
                del jobs[language][key]
        self._tell()
        return [job for each in jobs.values() for job in each.values()]

    def keep(self, batches: Sequence[list[_Job]], made: Iterator[list[_Heard | str]]) -> None:
        """Put every batch into the cache when it is done.

        Each transcript is found by its file and by its samples: a finished run's models, which
        hear samples, do not hear them again.
        """
        for batch, outcomes in zip(batches, made, strict=True):
            cache = self._caches[batch[0].language]
            done = [
                (job, each)
                for job, each in zip(batch, outcomes, strict=True)
                if isinstance(each, _Heard)
            ]
            known = {key: each.transcript for job, each in done for key in (job.key, each.samples)}
            cache.add(known, [_source(job.clip) for job, _ in done])
            for job, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, _Heard):
                    self._keep(job.language, job.key, outcome.transcript)
                else:
                    self._fail(job.language, job.row, outcome, job.key)
            self._tell()

    def _keep(self, language: str, key: bytes, transcript: Transcript) -> None:
        for row in self._rows_of_key[language, key]:
            self.found[row] = transcript

    def _fail(self, language: str, row: int, error: str, key: bytes | None = None) -> None:
        clip = self._spoken.clips[row]
        self._caches[language].add_failure(_source(clip), error)
        rows = [row] if key is None else self._rows_of_key[language, key]
        self.found.update(dict.fromkeys(rows, Transcript("", Status.failed, error=error)))

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(len(self.found), len(self._spoken.clips))


def _find(options: WhisperOptions, n_threads: int) -> WhisperFolder:
    """The Whisper of the machine that will transcribe, and on how many of its cores."""
    folder = find_whisper(options)
    chosen = {"n_threads": options.n_threads or n_threads}
    return WhisperFolder(folder.path, folder.options.model_copy(update=chosen))


def _iter_batches(
    jobs: Sequence[_Job], durations: Sequence[float], options: WhisperOptions
) -> Iterator[list[_Job]]:
    """Clips of one language and the same length in whole seconds, the longest first."""
    # The longest first: what does not fit into memory shows at once.
    by_length: dict[tuple[str, int], list[_Job]] = {}
    for job in jobs:
        seconds = math.ceil(durations[job.row])
        by_length.setdefault((job.language, -seconds), []).append(job)
    for (_, seconds), same in sorted(by_length.items()):
        size = clips_per_batch(options, -seconds)
        yield from (same[first : first + size] for first in range(0, len(same), size))


class _Hashing:
    """What addresses clips, or why one cannot be read."""

    def read(self, clips: Sequence[Clip]) -> list[bytes | str]:
        return [_key_or_reason(arrival) for arrival in iter_arrivals(clips)]

    def finish(self, found: list[bytes | str]) -> list[bytes | str]:
        return found


class _Hearing:
    """What a worker does to a batch: its transcripts, or why there is none."""

    def __init__(self, folder: WhisperFolder) -> None:
        is_here = (folder.path / "model.bin").is_file()
        # Another machine may keep the same one elsewhere.
        self._loaded = (folder if is_here else find_whisper(folder.options)).load()
        self._transcribers: dict[str, Transcriber] = {}

    def read(self, batch: Sequence[_Job]) -> _Read:
        waveforms: list[np.ndarray | AudioError] = []
        for arrival in iter_arrivals([job.clip for job in batch]):
            try:
                waveforms.append(arrival.load())
            except AudioError as error:
                waveforms.append(error)
        return list(zip(batch, waveforms, strict=True))

    def finish(self, read: _Read) -> list[_Heard | str]:
        language = read[0][0].language
        if language not in self._transcribers:
            self._transcribers[language] = Transcriber(self._loaded, language)
        readable = [(job, sound) for job, sound in read if isinstance(sound, np.ndarray)]
        outcomes = iter(_transcribed(self._transcribers[language], readable))
        made = [next(outcomes)[1] if isinstance(each, np.ndarray) else each for _, each in read]
        return [each if isinstance(each, _Heard) else str(each) for each in made]


def _key_or_reason(arrival: Arrival) -> bytes | str:
    try:
        return arrival.key()
    except AudioError as error:
        return str(error)


def _lost_clip(clip: Clip) -> bytes | str:
    return describe_lost(clip.path)


def _lost_job(job: _Job) -> _Heard | str:
    return describe_lost(job.clip.path)


def _transcribed(
    transcriber: Transcriber, readable: Sequence[tuple[_Job, np.ndarray]]
) -> list[tuple[_Job, _Heard | RuntimeError]]:
    """A batch at once; one by one where that fails, so that one clip does not fail others."""
    try:
        found = transcriber.transcribe([waveform for _, waveform in readable])
        return [
            (job, _Heard(transcript, samples_key(waveform)))
            for (job, waveform), transcript in zip(readable, found, strict=True)
        ]
    except RuntimeError as error:  # CTranslate2's, of which a lack of memory is one
        if len(readable) == 1:
            return [(readable[0][0], error)]
    return [_transcribed(transcriber, [each])[0] for each in readable]


def _source(clip: Clip) -> str:
    """How a failure names its clip."""
    part = "" if clip.start is None else f"|{clip.start!r}|{clip.end!r}"
    return clip.path + part + ("" if clip.channel is None else f"|channel {clip.channel}")
