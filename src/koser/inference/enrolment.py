"""Hearing a voice before recognising what it says: in files, or where a recording begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koser.audio.activity import ActivityOptions, find_speech
from koser.audio.listing import audio_in
from koser.audio.reading import SAMPLING_RATE, Clip, load_clip
from koser.errors import ConfigError, NoSpeechError
from koser.inference.models import ProbabilityModel, require_enrolling

if TYPE_CHECKING:
    from koser.features.voices import Voice
    from koser.inference.recognizer import Recognizer

_FIRST = "first:"
# However short an utterance is: what is refused holds no speech at all.
_ANY_SPEECH = ActivityOptions(min_speech=0)


def hear_voice(
    model: ProbabilityModel, waveforms: Iterable[np.ndarray], voice: Voice | None = None
) -> Voice:
    """What is known of a person once utterances were heard.

    Parameters
    ----------
    model : ProbabilityModel
        One that adapts to voices.
    waveforms : Iterable[np.ndarray] [each shape=(n_samples,)]
        One utterance each: float32, 16 kHz mono.
    voice : Voice, optional
        What was known before.

    Raises
    ------
    ConfigError
        If the model does not adapt to voices.
    """
    enrolling = require_enrolling(model)
    # One after the other: neither many files nor what they are batched with should count.
    for waveform in waveforms:
        voice = enrolling.prior.hear(enrolling.summarise([waveform]), voice)
    return enrolling.prior.hear([]) if voice is None else voice


def load_speech(sound: str | Path | np.ndarray) -> np.ndarray:
    """The waveform of a sound in which somebody speaks [shape=(n_samples,)].

    Parameters
    ----------
    sound : str, Path or np.ndarray
        A file, or a waveform [shape=(n_samples,)], float32, 16 kHz mono.

    Raises
    ------
    AudioError
        If a file cannot be read.
    NoSpeechError
        If nobody speaks in it.
    """
    if isinstance(sound, np.ndarray):
        require_speech(sound, "the sound")
        return sound
    waveform = load_clip(Clip(str(sound)))
    require_speech(waveform, f"'{sound}'")
    return waveform


def require_speech(waveform: np.ndarray, name: str) -> None:
    """Raise a `NoSpeechError` unless the detector of timelines hears speech in a waveform."""
    if not find_speech(waveform, _ANY_SPEECH):
        raise NoSpeechError(
            f"No speech is heard in {name} ({len(waveform) / SAMPLING_RATE:.2f} s), so it tells "
            f"nothing of a voice. Give an utterance of the person."
        )


@dataclass(frozen=True)
class EnrolSource:
    """What ``--enrol`` names.

    Attributes
    ----------
    paths : tuple[str, ...]
        Files of one person.
    first : float
        Or the seconds of speech that a recording begins with; 0 for none.
    from_folders : frozenset[str]
        Those of `paths` that only their folder was given of.
    """

    paths: tuple[str, ...] = ()
    first: float = 0.0
    from_folders: frozenset[str] = frozenset()

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
            files = [path for each in given for path in _files_of(each)]
            return cls(tuple(files), from_folders=frozenset(files).difference(given))
        if len(given) > 1 or not is_timeline:
            raise ConfigError(
                f"--enrol {firsts[0]} takes the person's voice from the recording itself, and is "
                f"for koser predict --timeline, without files beside it."
            )
        try:
            seconds = float(firsts[0].removeprefix(_FIRST))
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise ConfigError(f"--enrol {firsts[0]}: give seconds of speech, as in first:20")
        return cls(first=seconds)

    def enrol(self, recognizer: Recognizer) -> tuple[Recognizer, list[str]]:
        """The recognizer that has heard `paths`, and those of folders in which nobody speaks.

        Raises
        ------
        ConfigError
            If its model does not adapt to voices.
        AudioError
            If a file cannot be read; a `NoSpeechError` if nobody speaks in a file that was given
            by itself, or in any.
        """
        left_out = []
        for path in self.paths:
            try:
                recognizer = recognizer.enrol([path])
            except NoSpeechError:
                if path not in self.from_folders:
                    raise
                left_out.append(path)
        if left_out and len(left_out) == len(self.paths):
            raise NoSpeechError(
                f"No speech is heard in any of {len(left_out)} files to enrol by, such as "
                f"'{left_out[0]}'. Give utterances of the person."
            )
        return recognizer, left_out


def _files_of(given: str) -> list[str]:
    if not Path(given).is_dir():
        return [given]
    found = audio_in(given)
    if not found:
        raise ConfigError(f"--enrol {given}: no sound is in this folder. Give a person's files.")
    return found


def require_unheard(recognizer: Recognizer) -> None:
    """Refuse to hear the first speech of a recording for a voice.

    Raises
    ------
    ConfigError
        If the recognizer's model does not adapt to voices, or it knows one already: the first
        speech may be of somebody else.
    """
    recognizer.require_enrolling()
    if recognizer.voice is not None:
        raise ConfigError(
            "A voice is known already, and the first speech of the recording may be of another "
            "person. Give either an enrolment or enrol_first, not both."
        )


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
        As `require_unheard`.
    """

    def __init__(self, recognizer: Recognizer, seconds: float) -> None:
        require_unheard(recognizer)
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
        self._heard = self._heard.hear([waveform])
        self._end = end
        self._missing -= end - start
        if self._missing <= 0:
            self.enrolled_from = end / SAMPLING_RATE
