"""Where speech is: Silero's detector, fed piece by piece, and what is made of its scores.

All places are sample numbers at 16 kHz, so nothing depends on how a sound was cut into
pieces, and nothing grows with its length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from koser.audio.reading import SAMPLING_RATE
from koser.config import Config
from koser.runtime import open_session

FRAME_LENGTH = 512  # samples that the detector scores at once: 32 ms
_CONTEXT_LENGTH = 64  # samples before a frame that it hears too
_STATE_SHAPE = (1, 1, 128)
# A region goes on while frames score no less than this below what begins one.
_HYSTERESIS = 0.15
# Frames in one call: 16 s. More would only cost memory.
_MAX_FRAMES = 512


class ActivityOptions(Config):
    """What counts as speech."""

    # "silero" needs onnxruntime; "off" takes everything for speech.
    kind: Literal["silero", "off"] = "silero"
    threshold: float = Field(0.5, gt=0, lt=1)  # score at which speech begins
    hangover: float = Field(0.4, ge=0)  # seconds of silence that do not end it
    padding: float = Field(0.1, ge=0)  # seconds added at both ends
    min_speech: float = Field(0.25, ge=0)  # seconds; shorter speech is left out

    @model_validator(mode="after")
    def _check(self) -> ActivityOptions:
        if 2 * self.padding > self.hangover:
            raise ValueError(
                f"padding = {self.padding:g} s at both ends of a silence of hangover = "
                f"{self.hangover:g} s: neighbours would overlap. Lower padding to half of hangover"
            )
        return self


@dataclass(frozen=True)
class Extent:
    """How far a region of speech reaches, as far as is known.

    Attributes
    ----------
    start : int
        First sample.
    end : int
        Sample after the last one that surely belongs to it; it never goes back.
    is_closed : bool
        Whether `end` is final.
    """

    start: int
    end: int
    is_closed: bool


class FrameScorer(Protocol):
    """Speech scores of a waveform that arrives in pieces."""

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples; return the scores of the frames that they complete."""
        ...

    def finish(self) -> np.ndarray:
        """Score of the last frame, if one was begun."""
        ...


class SpeechFrames:
    """Speech scores of a waveform that arrives in pieces; one score per `FRAME_LENGTH` samples.

    The detector is a recurrent network (Silero VAD 6.2, see ``silero/README.md``).
    """

    def __init__(self) -> None:
        self._session = _silero()
        self._state = [np.zeros(_STATE_SHAPE, np.float32), np.zeros(_STATE_SHAPE, np.float32)]
        self._context = np.zeros(_CONTEXT_LENGTH, np.float32)
        self._rest = np.zeros(0, np.float32)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples; return the scores of the frames that they complete.

        Parameters
        ----------
        samples : np.ndarray [shape=(n_samples,)]
            float32, 16 kHz mono, of any length.

        Returns
        -------
        np.ndarray [shape=(n_frames,)]
            In [0, 1].
        """
        waiting = np.concatenate([self._rest, samples])
        n_frames = len(waiting) // FRAME_LENGTH
        self._rest = waiting[n_frames * FRAME_LENGTH :].copy()
        frames = waiting[: n_frames * FRAME_LENGTH].reshape(-1, FRAME_LENGTH)
        return self._score(frames)

    def finish(self) -> np.ndarray:
        """Score of the last frame, filled up with silence; empty where none was begun."""
        if not len(self._rest):
            return np.zeros(0, np.float32)
        frame = np.zeros((1, FRAME_LENGTH), np.float32)
        frame[0, : len(self._rest)] = self._rest
        self._rest = self._rest[:0]
        return self._score(frame)

    def _score(self, frames: np.ndarray) -> np.ndarray:
        scores = [np.zeros(0, np.float32)]
        for first in range(0, len(frames), _MAX_FRAMES):
            block = frames[first : first + _MAX_FRAMES]
            contexts = np.vstack([self._context, block[:-1, -_CONTEXT_LENGTH:]])
            self._context = block[-1, -_CONTEXT_LENGTH:].copy()
            inputs = {
                "input": np.hstack([contexts, block]),
                "h": self._state[0],
                "c": self._state[1],
            }
            found, *self._state = self._session.run(["speech_probs", "hn", "cn"], inputs)
            scores.append(found.reshape(-1))
        return np.concatenate(scores)


class SpeechRegions:
    """Regions of speech in a waveform that arrives in pieces.

    Speech begins with a frame that scores `threshold`, goes on through silences shorter than
    `hangover`, and counts if it lasts `min_speech`; `padding` is then added at both ends,
    within the sound. A region is reported when it is sure to be one, again as it grows, and
    a last time when it has ended.

    Parameters
    ----------
    options : ActivityOptions
        What counts as speech.
    frames : FrameScorer, optional
        What scores frames; Silero's detector by default.
    """

    def __init__(self, options: ActivityOptions, frames: FrameScorer | None = None) -> None:
        self._is_off = options.kind == "off"
        self._frames = None if self._is_off else frames or SpeechFrames()
        self._onset = options.threshold
        self._offset = max(options.threshold - _HYSTERESIS, options.threshold / 2)
        self._hangover = _samples(options.hangover)
        self._padding = _samples(options.padding)
        self._min_speech = 0 if self._is_off else _samples(options.min_speech)
        self._n_fed = 0
        self._n_scored = 0
        self._speech: tuple[int, int] | None = None  # first sample, and the one after the last

    def feed(self, samples: np.ndarray) -> list[Extent]:
        """Take the next samples (float32, 16 kHz mono); return what is new of regions, in order."""
        if not len(samples):
            return []
        self._n_fed += len(samples)
        if self._frames is None:
            self._speech = (0, self._n_fed)
            return [self._extent(is_closed=False)]
        return self._track(self._frames.feed(samples))

    def finish(self) -> list[Extent]:
        """End the sound; return what is new of regions."""
        extents = [] if self._frames is None else self._track(self._frames.finish())
        extents += self._close()
        return extents

    @property
    def earliest(self) -> int:
        """First sample that a region may have that was not reported yet."""
        if self._speech is None:
            return self._padded_start(self._n_scored)
        start, end = self._speech
        return self._padded_start(start) if self._is_short() else end

    def _track(self, scores: np.ndarray) -> list[Extent]:
        extents: list[Extent] = []
        for score in scores.tolist():
            start, self._n_scored = self._n_scored, self._n_scored + FRAME_LENGTH
            if self._speech is None:
                if score >= self._onset:
                    self._speech = (start, self._n_scored)
            elif score >= self._offset:
                self._speech = (self._speech[0], self._n_scored)
            elif self._n_scored - self._speech[1] >= self._hangover:
                extents += self._close()
        # Told of again in silence too, which shows more of its padding.
        if self._speech is not None and len(scores) and not self._is_short():
            extents.append(self._extent(is_closed=False))
        return extents

    def _close(self) -> list[Extent]:
        if self._speech is None:
            return []
        extents = [] if self._is_short() else [self._extent(is_closed=True)]
        self._speech = None
        return extents

    def _is_short(self) -> bool:
        return self._speech is not None and self._speech[1] - self._speech[0] < self._min_speech

    def _extent(self, *, is_closed: bool) -> Extent:
        start, end = self._speech or (0, 0)
        if self._is_off:
            return Extent(start, end, is_closed)
        return Extent(self._padded_start(start), min(end + self._padding, self._n_fed), is_closed)

    def _padded_start(self, start: int) -> int:
        return max(0, start - self._padding)


def find_speech(waveform: np.ndarray, options: ActivityOptions) -> list[tuple[int, int]]:
    """Regions of speech of a whole waveform.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        float32, 16 kHz mono.
    options : ActivityOptions
        What counts as speech.

    Returns
    -------
    list[tuple[int, int]]
        First sample, and the sample after the last one; ascending, without overlap.
    """
    regions = SpeechRegions(options)
    extents = [*regions.feed(waveform), *regions.finish()]
    return [(extent.start, extent.end) for extent in extents if extent.is_closed]


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLING_RATE)


@lru_cache(maxsize=1)
def _silero() -> Any:  # an InferenceSession: it has no state of its own, so all may share it
    folder = resources.files("koser.audio") / "silero"
    model = (folder / "silero_vad_16k_sequence.onnx").read_bytes()
    return open_session(model, name="silero_vad_16k_sequence.onnx")
