"""From clips to transcripts in the cache, whatever part of them is there already."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from koser.audio.reading import Clip
from koser.engines.local import available_cores, iter_ahead
from koser.errors import AudioError
from koser.features.arrivals import Arrival, iter_arrivals
from koser.features.extraction import Progress
from koser.features.residence import use_and_free
from koser.features.text.cache import CACHE_NAME, TranscriptCache
from koser.features.text.guards import Status, Transcript
from koser.features.text.transcriber import Transcriber
from koser.features.text.whisper import (
    LoadedWhisper,
    WhisperFolder,
    WhisperOptions,
    find_whisper,
)

logger = logging.getLogger(__name__)

DEFAULT_LANGUAGE = "ko"


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


def spoken_languages(options: WhisperOptions, known: Sequence[str | None]) -> list[str]:
    """The language of each clip: the option's, else what is known of it, else Korean."""
    return [options.language or language or DEFAULT_LANGUAGE for language in known]


def transcribe_clips(
    spoken: Spoken,
    options: WhisperOptions,
    store_root: Path,
    *,
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
    progress : Progress, optional
        Called with the number of clips done so far and their total.

    Raises
    ------
    EncoderError
        If Whisper cannot be had.
    StoreError
        If the cache cannot be read or written.
    """
    folder = find_whisper(options)
    work = _Work(spoken, folder, store_root / CACHE_NAME, progress)
    try:
        todo = work.look_up()
        if todo:
            use_and_free(f"Whisper {options.name}", folder.load, partial(work.transcribe, todo))
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
    n_new = sum(map(len, todo.values()))
    return Transcription(transcripts, folder.options, n_new)


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

    def look_up(self) -> dict[str, list[_Job]]:
        """What the cache does not have, by language; each sound once."""
        arrivals = iter_arrivals(self._spoken.clips)
        keys = iter_ahead(_key_or_error, arrivals, n_threads=available_cores())
        jobs: dict[str, dict[bytes, _Job]] = {language: {} for language in self._caches}
        for row, (clip, key) in enumerate(zip(self._spoken.clips, keys, strict=True)):
            language = self._spoken.languages[row]
            if isinstance(key, AudioError):
                self._fail(language, row, key)
                continue
            self._rows_of_key.setdefault((language, key), []).append(row)
            jobs[language].setdefault(key, _Job(row, clip, key))
        for language, cache in self._caches.items():
            for key, transcript in cache.find(list(jobs[language])).items():
                self._keep(language, key, transcript)
                del jobs[language][key]
        self._tell()
        return {language: list(each.values()) for language, each in jobs.items() if each}

    def transcribe(self, todo: dict[str, list[_Job]], loaded: LoadedWhisper) -> None:
        """Fill the cache with what it does not have."""
        for language, jobs in todo.items():
            transcriber = Transcriber(loaded, language)
            batches = self._batches(jobs, transcriber)
            read = iter_ahead(_read, batches, n_threads=available_cores())
            for batch, waveforms in read:
                self._transcribe_batch(language, transcriber, batch, waveforms)
                self._tell()

    def _batches(self, jobs: list[_Job], transcriber: Transcriber) -> Iterator[list[_Job]]:
        """Clips of the same length in whole seconds together, the longest first."""
        # The longest first: what does not fit into memory shows at once.
        seconds = [math.ceil(self._spoken.durations[job.row]) for job in jobs]
        for length in sorted(set(seconds), reverse=True):
            same = [job for job, each in zip(jobs, seconds, strict=True) if each == length]
            size = transcriber.clips_per_batch(length)
            yield from (same[first : first + size] for first in range(0, len(same), size))

    def _transcribe_batch(
        self,
        language: str,
        transcriber: Transcriber,
        batch: list[_Job],
        waveforms: list[np.ndarray | AudioError],
    ) -> None:
        readable: list[tuple[_Job, np.ndarray]] = []
        for job, waveform in zip(batch, waveforms, strict=True):
            if isinstance(waveform, AudioError):
                self._fail(language, job.row, waveform, job.key)
            else:
                readable.append((job, waveform))
        made = _transcribed(transcriber, readable)
        kept = {job.key: found for job, found in made if isinstance(found, Transcript)}
        cache = self._caches[language]
        cache.add(kept, [_source(job.clip) for job, _ in made if job.key in kept])
        for job, found in made:
            if isinstance(found, Transcript):
                self._keep(language, job.key, found)
            else:
                self._fail(language, job.row, found, job.key)

    def _keep(self, language: str, key: bytes, transcript: Transcript) -> None:
        for row in self._rows_of_key[language, key]:
            self.found[row] = transcript

    def _fail(self, language: str, row: int, error: Exception, key: bytes | None = None) -> None:
        clip = self._spoken.clips[row]
        self._caches[language].add_failure(_source(clip), str(error))
        rows = [row] if key is None else self._rows_of_key[language, key]
        self.found.update(dict.fromkeys(rows, Transcript("", Status.failed, error=str(error))))

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(len(self.found), len(self._spoken.clips))


def _key_or_error(arrival: Arrival) -> bytes | AudioError:
    try:
        return arrival.key()
    except AudioError as error:
        return error


def _read(batch: list[_Job]) -> tuple[list[_Job], list[np.ndarray | AudioError]]:
    waveforms: list[np.ndarray | AudioError] = []
    for arrival in iter_arrivals([job.clip for job in batch]):
        try:
            waveforms.append(arrival.load())
        except AudioError as error:
            waveforms.append(error)
    return batch, waveforms


def _transcribed(
    transcriber: Transcriber, readable: Sequence[tuple[_Job, np.ndarray]]
) -> list[tuple[_Job, Transcript | RuntimeError]]:
    """A batch at once; one by one where that fails, so that one clip does not fail others."""
    jobs = [job for job, _ in readable]
    try:
        found = transcriber.transcribe([waveform for _, waveform in readable])
        return list(zip(jobs, found, strict=True))
    except RuntimeError as error:  # CTranslate2's, of which a lack of memory is one
        if len(readable) == 1:
            return [(jobs[0], error)]
    return [_transcribed(transcriber, [each])[0] for each in readable]


def _source(clip: Clip) -> str:
    """How a failure names its clip."""
    part = "" if clip.start is None else f"|{clip.start!r}|{clip.end!r}"
    return clip.path + part + ("" if clip.channel is None else f"|channel {clip.channel}")
