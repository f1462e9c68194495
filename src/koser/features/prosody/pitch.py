"""The pitch of the voice, by SwiftF0 [1]_, and which frames have one.

References
----------
.. [1] Nieradzik, "SwiftF0: fast and accurate monophonic pitch detection",
   arXiv:2508.18440, 2025.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from koser.audio.reading import SAMPLING_RATE
from koser.config import Config
from koser.errors import CheckpointError
from koser.features.prosody.frames import HOP_LENGTH, SILENCE, count_frames
from koser.hashes import sha256_of

# The detector hears every clip with this peak: its answers would else hang on the level.
_PEAK = 0.5
SEMITONE_ORIGIN = 27.5  # Hz, the lowest A of a piano, as in GeMAPS


class PitchOptions(Config):
    """What counts as the pitch of a voice."""

    f0_min: float = Field(60.0, ge=50)  # Hz
    f0_max: float = Field(600.0, le=2000)  # Hz; screams reach it
    confidence: float = Field(0.5, ge=0, le=1)  # of the detector, from which a frame is voiced
    # Frames in a row, 16 ms each, that make a voiced segment; shorter ones are chance.
    min_frames: int = Field(3, gt=0)
    # The detector's version and model, filled in when features are extracted.
    detector: str = Field("", pattern=r"^(swift-f0 \S+ [0-9a-f]{12})?$")

    @model_validator(mode="after")
    def _check(self) -> PitchOptions:
        if not 2 * self.f0_min <= self.f0_max:
            raise ValueError(
                f"need an octave or more between f0_min = {self.f0_min:g} and "
                f"f0_max = {self.f0_max:g} Hz"
            )
        return self

    def pinned(self) -> PitchOptions:
        """These, with the detector that is installed.

        Raises
        ------
        CheckpointError
            If they name another one.
        """
        here = detector_name()
        if self.detector not in ("", here):
            raise CheckpointError(
                f"This model was trained on the pitch of {self.detector}, and {here} is "
                f"installed: its features would differ. Run: pip install "
                f"'swift-f0=={self.detector.split()[1]}'"
            )
        return self.model_copy(update={"detector": here})


@dataclass(frozen=True)
class Pitch:
    """The pitch of a clip.

    Attributes
    ----------
    hertz : np.ndarray [shape=(n_frames,)]
        NaN in frames without a voice.
    segments : tuple[slice, ...]
        Frames of each voiced segment, in order.
    """

    hertz: np.ndarray
    segments: tuple[slice, ...]

    @property
    def is_voiced(self) -> np.ndarray:
        """Which frames have a voice [shape=(n_frames,)]."""
        return np.asarray(~np.isnan(self.hertz))

    @property
    def semitones(self) -> np.ndarray:
        """Semitones above 27.5 Hz [shape=(n_frames,)]; NaN without a voice."""
        return np.asarray(12.0 * np.log2(self.hertz / SEMITONE_ORIGIN))


@lru_cache(maxsize=1)
def _detector() -> Any:
    from swift_f0 import SwiftF0

    # One thread: clips in several processes share the cores better.
    return SwiftF0(threads=1, spin=False)


@lru_cache(maxsize=1)
def detector_name() -> str:
    """Which detector is installed: name, version and the start of its model's hash."""
    import swift_f0

    with resources.as_file(resources.files(swift_f0) / "model.onnx") as path:
        return f"swift-f0 {version('swift-f0')} {sha256_of(path)[:12]}"


def detect_pitch(waveform: np.ndarray, options: PitchOptions) -> Pitch:
    """Find the pitch of every frame; `koser.features.prosody.frames` says where they are.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono.
    options : PitchOptions
        What counts.
    """
    n_frames = count_frames(len(waveform))
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak**2 <= SILENCE:
        return Pitch(np.full(n_frames, np.nan), ())
    scaled = np.asarray(waveform * (_PEAK / peak), np.float32)
    # Shorter than a hop, its model would have nothing to look at.
    scaled = np.pad(scaled, (0, max(0, HOP_LENGTH - len(scaled))))
    found = _detector().detect(scaled, SAMPLING_RATE, options.f0_min, options.f0_max)
    hertz = np.where(found.confidence >= options.confidence, found.pitch_hz, np.nan)
    segments = tuple(
        each for each in true_runs(~np.isnan(hertz)) if each.stop - each.start >= options.min_frames
    )
    kept = np.full(n_frames, np.nan)
    for segment in segments:
        kept[segment] = hertz[segment]
    return Pitch(kept, segments)


def true_runs(flags: np.ndarray) -> list[slice]:
    """Where flags are true without interruption, in order.

    Examples
    --------
    >>> true_runs(np.array([True, True, False, True]))
    [slice(0, 2, None), slice(3, 4, None)]
    """
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [slice(int(start), int(stop)) for start, stop in list(pairwise(changes))[::2]]
