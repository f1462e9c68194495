"""Valence and arousal of any sound, by a model of `koser regress`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koser.audio.reading import SAMPLING_RATE, Clip
from koser.evaluation.dimensions import DIMENSIONS
from koser.inference.batches import compute_rows, iter_results
from koser.inference.prediction import Failure, Values

if TYPE_CHECKING:
    from koser.systems.dimensions import DimensionalSystem


class Regressor:
    """A trained model that maps sound to valence and arousal.

    Parameters
    ----------
    system : DimensionalSystem
        Trained.
    """

    def __init__(self, system: DimensionalSystem) -> None:
        self._system = system

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Values of waveforms, those of similar length computed together.

        Parameters
        ----------
        waveforms : Sequence[np.ndarray] [each shape=(n_samples,)]
            float32, 16 kHz mono, each of at least one sample.

        Returns
        -------
        np.ndarray [shape=(n_waveforms, 2)]
            Valence and arousal, in the raters' units.
        """
        return compute_rows(waveforms, self._system.predict_waveforms, len(DIMENSIONS))

    def predict_files(self, paths: Iterable[str | Path]) -> list[Values | Failure]:
        """Values of files; one that cannot be read becomes a `Failure` in its place."""
        return list(self.iter_clips(Clip(str(path)) for path in paths))

    def iter_clips(self, clips: Iterable[Clip]) -> Iterator[Values | Failure]:
        """Yield the values of each file, or part of one, in order; see `Recognizer.iter_clips`."""
        return iter_results(clips, self._predict)

    def interpret(self, values: np.ndarray, duration: float, *, clip: Clip | None = None) -> Values:
        """Say what a row of `predict_waveforms` is, of a sound of `duration` seconds."""
        valence, arousal = values.tolist()
        path, start = (None, None) if clip is None else (clip.path, clip.start)
        return Values(valence, arousal, duration, path, start)

    def _predict(self, waveforms: Sequence[np.ndarray], clips: Sequence[Clip]) -> list[Values]:
        rows = self.predict_waveforms(waveforms)
        return [
            self.interpret(row, len(waveform) / SAMPLING_RATE, clip=clip)
            for row, waveform, clip in zip(rows, waveforms, clips, strict=True)
        ]


def load_regressor(model: str | Path, *, encoder: str | None = None) -> Regressor:
    """Load a model of valence and arousal.

    Parameters
    ----------
    model : str or Path
        A run folder of `koser regress`, or a ``.pth`` from one.
    encoder : str, optional
        Where its pretrained encoder is now, if not where it was in training: a folder or a hub
        id. It must be the same one.

    Raises
    ------
    CheckpointError
        If there is no such model, or it has no encoder and one is given.
    EncoderError
        If its encoder cannot be loaded, or is another one.
    """
    # Here and not above: torch takes seconds, and `koser.cli` must not wait for it.
    from koser.systems.dimensions import DimensionalSystem

    return Regressor(DimensionalSystem.read(model, encoder=encoder))


def gives_values(model: Path) -> bool:
    """Whether a model gives valence and arousal instead of probabilities of labels.

    Raises
    ------
    CheckpointError
        If there is no model.
    """
    if model.suffix == ".onnx":
        return False  # what is exported is of labels, and needs no torch
    from koser.models.checkpoint import find_checkpoint, read_system_name
    from koser.systems import DIMENSIONAL

    return read_system_name(find_checkpoint(model)).endswith(DIMENSIONAL)
