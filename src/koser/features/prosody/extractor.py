"""An utterance's functionals, and which of them it has, for the feature store."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from koser.audio.augmentation import change_speed
from koser.features.prosody.frames import describe_spectra, mean_level
from koser.features.prosody.functionals import FUNCTIONALS, summarise
from koser.features.prosody.periods import measure_perturbations
from koser.features.prosody.pitch import Pitch, PitchOptions, detect_pitch
from koser.features.prosody.voice import describe_harmonics, find_formants

# Raised whenever a descriptor is computed otherwise: what is stored is then made anew, and models
# that learnt from the earlier one are refused. 2: periods are marked from the middle of a voiced
# segment.
DEFINITION = 2


class ProsodyExtractor:
    """A waveform's functionals, one clip at a time.

    Parameters
    ----------
    options : PitchOptions
        Of the pitch; everything else is fixed by definition.
    speed : float
        Speed perturbation applied to the waveform first; 1.0 is none.
    """

    name = "prosody"

    def __init__(self, options: PitchOptions, *, speed: float = 1.0) -> None:
        self.options = options.pinned()
        self.speed = speed

    def describe(self) -> dict[str, object]:
        """All that the result depends on beside the waveform; part of its address."""
        return {
            "extractor": self.name,
            "definition": DEFINITION,
            "functionals": [each.name for each in FUNCTIONALS],
            "speed": self.speed,
            **self.options.model_dump(mode="json"),
        }

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Extract one clip.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,)]
            16 kHz mono.

        Returns
        -------
        np.ndarray [shape=(2, n_functionals)]
            float32, finite: the values of `FUNCTIONALS`, then 1 for each that is defined and
            0 for each that is not, whose value means nothing.
        """
        if self.speed != 1.0:
            waveform = change_speed(waveform, self.speed)
        values = extract_functionals(waveform, self.options)
        is_defined = ~np.isnan(values)
        return np.stack([np.where(is_defined, values, 0.0), is_defined]).astype(np.float32)


def extract_functionals(waveform: np.ndarray, options: PitchOptions) -> np.ndarray:
    """All functionals of a clip; see `koser.features.prosody.functionals.summarise`."""
    frames, pairs, pitch = describe_clip(waveform, options)
    return summarise(frames, pairs, pitch, mean_level(waveform))


def describe_clip(
    waveform: np.ndarray, options: PitchOptions
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Pitch]:
    """The descriptors of a clip.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono.
    options : PitchOptions
        Of the pitch.

    Returns
    -------
    frames : dict [shape=(n_frames,)]
        Of every frame, by name; NaN where one has no value.
    pairs : dict [shape=(n_pairs,)]
        Of every two consecutive periods, by name.
    pitch : Pitch
        Which frames have a voice.
    """
    pitch = detect_pitch(waveform, options)
    formants = find_formants(waveform, pitch)
    frames: dict[str, np.ndarray] = {
        "f0": pitch.semitones,
        **asdict(describe_spectra(waveform)),
        **asdict(describe_harmonics(waveform, pitch, formants)),
    }
    for place, (frequency, bandwidth) in enumerate(
        zip(formants.frequencies, formants.bandwidths, strict=True), start=1
    ):
        frames |= {f"f{place}": frequency, f"f{place}_bandwidth": bandwidth}
    return frames, asdict(measure_perturbations(waveform, pitch)), pitch
