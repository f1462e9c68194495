"""A table of sound itself: read, augmented and cut into windows when it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from koser.audio.augmentation import AugmentOptions, augment
from koser.audio.reading import SAMPLING_RATE, Clip, load_clip
from koser.features.speech.windows import split_windows
from koser.training.batches import pad_windows


@dataclass(frozen=True)
class WaveformTable:
    """Waveforms of a manifest's utterances; a length counts samples.

    Attributes
    ----------
    clips : Sequence[Clip]
        Where each utterance is.
    window_samples : int
        Longest window that the network takes.
    targets : np.ndarray [shape=(n_utterances, n_classes)]
        float32 target distributions.
    durations : np.ndarray [shape=(n_utterances,)]
        Seconds of each utterance; batches are planned with them, so that no file has to
        be opened for it.
    augmentation : AugmentOptions
        How training changes what it hears.
    fingerprint : str
        Of the encoder that hears it: its frozen part is no part of what is trained.
    """

    in_windows: ClassVar[bool] = True
    clips: Sequence[Clip]
    window_samples: int
    targets: np.ndarray
    durations: np.ndarray
    augmentation: AugmentOptions
    fingerprint: str = ""

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Samples of utterances at 16 kHz, unaugmented."""
        samples: np.ndarray = np.rint(self.durations[rows] * SAMPLING_RATE).astype(np.int64)
        return samples

    def n_windows(self, rows: np.ndarray) -> np.ndarray:
        """Windows that utterances are cut into, unaugmented; see `split_windows`."""
        counts: np.ndarray = np.maximum(-(-self.lengths(rows) // self.window_samples), 1)
        return counts

    def read(self, row: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Windows of one utterance, with `rng` augmented [shape=(n_windows, n_samples)].

        Raises
        ------
        AudioError
            If the file cannot be read.
        """
        clip = self.clips[row]
        waveform = load_clip(clip)
        if rng is not None:
            waveform = augment(waveform, self.augmentation, rng)
        return split_windows(waveform, self.window_samples)

    @staticmethod
    def collate(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """``(waveforms, n_samples, owners)`` of `pad_windows`."""
        return pad_windows(arrays)

    def describe(self, rows: np.ndarray) -> str:
        """A hash of the clips, of their lengths and targets; how and by whom they are heard."""
        clips = [self.clips[row] for row in rows.tolist()]
        digest = hashlib.blake2b(repr(clips).encode(), digest_size=16)
        for array in (self.lengths(rows), self.targets[rows]):
            digest.update(np.ascontiguousarray(array).tobytes())
        settings = f"{self.window_samples} {self.augmentation.model_dump_json()}"
        return f"{digest.hexdigest()} {settings} {self.fingerprint}"
