"""Hearing a voice before recognising what it says: in files, or where a recording begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koser.audio.listing import audio_in
from koser.audio.reading import SAMPLING_RATE, Clip, load_clip
from koser.errors import ConfigError
from koser.inference.models import ProbabilityModel, require_enrolling

if TYPE_CHECKING:
    from koser.features.voices import Voice
    from koser.inference.recognizer import Recognizer

_FIRST = "first:"


def hear_voice(
    model: ProbabilityModel,
    sounds: Sequence[str | Path | np.ndarray],
    voice: Voice | None = None,
) -> Voice:
    """What is known of a person once utterances were heard.

    Parameters
    ----------
    model : ProbabilityModel
        One that adapts to voices.
    sounds : Sequence
        One utterance each: files, or waveforms [shape=(n_samples,)], float32, 16 kHz mono.
    voice : Voice, optional
        What was known before.

    Raises
    ------
    ConfigError
        If the model does not adapt to voices.
    AudioError
        If a file cannot be read.
    """
    enrolling = require_enrolling(model)
    # One after the other: neither many files nor what they are batched with should count.
    for each in sounds:
        waveform = each if isinstance(each, np.ndarray) else load_clip(Clip(str(each)))
        voice = enrolling.prior.hear(enrolling.summarise([waveform]), voice)
    return enrolling.prior.hear([]) if voice is None else voice


@dataclass(frozen=True)
class EnrolSource:
    """What ``--enrol`` names.

    Attributes
    ----------
    paths : tuple[str, ...]
        Files of one person.
    first : float
        Or the seconds of speech that a recording begins with; 0 for none.
    """

    paths: tuple[str, ...] = ()
    first: float = 0.0

    @classmethod
    def parse(cls, given: Sequence[str], *, is_timeline: bool) -> EnrolSource:
        """Read the values of ``--enrol``: files, folders of them, or ``first:SECONDS``.

        Raises
        ------
        ConfigError
            If they are neither, or both, or a folder holds no sound.
        """
        firsts = [each for each in given if each.startswith(_FIRST)]
        if not firsts:
            return cls(tuple(path for each in given for path in _files_of(each)))
        if len(given) > 1 or not is_timeline:
            raise ConfigError(
                f"--enrol {firsts[0]} takes the person's voice from the recording itself, and is "
                f"for --timeline, without files beside it."
            )
        try:
            seconds = float(firsts[0].removeprefix(_FIRST))
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise ConfigError(f"--enrol {firsts[0]}: give seconds of speech, as in first:20")
        return cls(first=seconds)


def _files_of(given: str) -> list[str]:
    if not Path(given).is_dir():
        return [given]
    found = audio_in(given)
    if not found:
        raise ConfigError(f"--enrol {given}: no sound is in this folder. Give a person's files.")
    return found


class FirstSpeech:
    """Enrols whoever speaks in a recording, by the first speech of it.

    Stretches of speech that do not overlap are heard, each as an utterance, until they are long
    enough. What was recognised up to then stays as it was said; what begins to be recognised
    afterwards is of the voice that was heard.

    Parameters
    ----------
    recognizer : Recognizer
        Of a model that adapts to voices.
    seconds : float
        Of speech that are heard.

    Raises
    ------
    ConfigError
        If the model does not adapt to voices.
    """

    def __init__(self, recognizer: Recognizer, seconds: float) -> None:
        recognizer.require_enrolling()
        self.recognizer = recognizer
        self.enrolled_from: float | None = None
        self._missing = round(seconds * SAMPLING_RATE)
        self._heard = recognizer
        self._end = 0  # of what was heard

    def predict(
        self, extents: Sequence[tuple[int, int]], waveforms: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Probabilities of stretches of speech, in the order of their starts.

        Parameters
        ----------
        extents : Sequence[tuple[int, int]]
            First sample of each, and the one after the last.
        waveforms : Sequence[np.ndarray]
            Their sound.
        """
        n_before = 0
        while self.enrolled_from is None and n_before < len(waveforms):
            self._hear(*extents[n_before], waveforms[n_before])
            n_before += 1
        before = self.recognizer.predict_waveforms(waveforms[:n_before])
        if self.enrolled_from is not None:
            self.recognizer = self._heard
        after = self.recognizer.predict_waveforms(waveforms[n_before:])
        return np.concatenate([before, after])

    def _hear(self, start: int, end: int, waveform: np.ndarray) -> None:
        if start < self._end:
            return  # of the windows that overlap, one in each place is heard
        self._heard = self._heard.enrol([waveform])
        self._end = end
        self._missing -= end - start
        if self._missing <= 0:
            self.enrolled_from = end / SAMPLING_RATE
