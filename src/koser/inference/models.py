"""What a recognizer needs of a model, and the two kinds that have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from koser.errors import CheckpointError

if TYPE_CHECKING:
    from koser.systems.system import ReadingSystem, System

# torch and transformers are imported by none but those who load a checkpoint: an ONNX model
# starts in a fraction of the time.


class ProbabilityModel(Protocol):
    """A map from sound to probabilities of labels, all of whose settings come with it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        ...

    @property
    def origin(self) -> Mapping[str, object]:
        """Where it comes from: protocol, split, corpus, seed."""
        ...

    @property
    def is_threaded(self) -> bool:
        """Whether it is fastest with one waveform at a time in each of several threads."""
        ...

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities of waveforms (16 kHz mono) [shape=(n_waveforms, n_labels)]."""
        ...


@runtime_checkable
class ReadingModel(ProbabilityModel, Protocol):
    """A model that hears words too, and can be told them."""

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str | None]:
        """What is said in each; None where nothing can be believed."""
        ...

    def predict_spoken(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None]
    ) -> np.ndarray:
        """Calibrated probabilities, as if `texts` were said [shape=(n_waveforms, n_labels)]."""
        ...


class TorchModel:
    """A trained system from a checkpoint.

    Parameters
    ----------
    system : System
        The system.
    origin : Mapping[str, object]
        Of the checkpoint.
    temperature : float
        Of the checkpoint.
    """

    is_threaded = False

    def __init__(
        self, system: System, origin: Mapping[str, object], *, temperature: float = 1.0
    ) -> None:
        self.system = system
        self.origin = dict(origin)
        self.temperature = temperature

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the probabilities."""
        return self.system.labels

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities of waveforms [shape=(n_waveforms, n_labels)]."""
        return self._calibrated(self.system.predict_waveforms(waveforms))

    def _calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        from koser.evaluation.calibration import apply_temperature

        return apply_temperature(probabilities, self.temperature)


class ReadingTorchModel(TorchModel):
    """A trained system that reads transcripts, as `TorchModel`."""

    def __init__(
        self,
        system: System,
        reader: ReadingSystem,
        origin: Mapping[str, object],
        *,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(system, origin, temperature=temperature)
        self._reader = reader

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str | None]:
        """What is said in each; None where nothing can be believed."""
        return self._reader.transcribe(waveforms)

    def predict_spoken(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None]
    ) -> np.ndarray:
        """Calibrated probabilities, as if `texts` were said [shape=(n_waveforms, n_labels)]."""
        return self._calibrated(self._reader.predict_spoken(waveforms, texts))


def load_model(
    model: Path,
    *,
    encoder: str | None = None,
    whisper: str | None = None,
    text_model: str | None = None,
) -> ProbabilityModel:
    """Load a run folder, a checkpoint or an ONNX model; see `load_recognizer`."""
    # By its place in the configuration.
    moved = {"encoder": encoder, "whisper": whisper, "text": text_model}
    moved = {part: name for part, name in moved.items() if name is not None}
    if model.suffix == ".onnx":
        from koser.inference.onnx_model import OnnxModel

        if moved:
            raise CheckpointError(
                f"'{model}' brings its pretrained models along. Do not say where they are."
            )
        return OnnxModel(model)
    from koser.models.checkpoint import Checkpoint, find_checkpoint
    from koser.systems import system_class
    from koser.systems.system import ReadingSystem

    checkpoint = Checkpoint.read(find_checkpoint(model))
    for part, name in moved.items():
        checkpoint = checkpoint.with_model(part, str(name))
    system = system_class(checkpoint.system).from_checkpoint(checkpoint)
    if isinstance(system, ReadingSystem):
        return ReadingTorchModel(
            system, system, checkpoint.origin, temperature=checkpoint.temperature
        )
    return TorchModel(system, checkpoint.origin, temperature=checkpoint.temperature)
