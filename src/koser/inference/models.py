"""What a recognizer needs of a model, and the two kinds that have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from koser.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from koser.features.voices import SpeakerPrior, Voice
    from koser.systems.system import EnrollingSystem, ReadingSystem, System

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

    @property
    def is_on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
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


@runtime_checkable
class EnrollingModel(ProbabilityModel, Protocol):
    """A model that adapts to a voice of which something was heard."""

    @property
    def prior(self) -> SpeakerPrior:
        """What it knows of speakers before it hears one."""
        ...

    def summarise(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What `SpeakerPrior.hear` takes of waveforms (16 kHz mono), one for each."""
        ...

    def predict_enrolled(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None]
    ) -> np.ndarray:
        """Calibrated probabilities, each waveform of its voice [shape=(n_waveforms, n_labels)]."""
        ...


def require_enrolling(model: ProbabilityModel) -> EnrollingModel:
    """The model, if it adapts to voices.

    Raises
    ------
    ConfigError
        If it does not.
    """
    if isinstance(model, EnrollingModel):
        return model
    raise ConfigError(
        "This model does not adapt to a speaker: it was trained without enrolment, or exported. "
        "Recognise without it, or train one that does: koser train --model wav2vec2 --enrol 5"
    )


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

    @property
    def is_on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        from koser.training.devices import choose_device

        return choose_device(self.system.device).type == "cuda"

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities of waveforms [shape=(n_waveforms, n_labels)]."""
        return self._calibrated(self.system.predict_waveforms(waveforms))

    def keep_transcripts(self, store_root: Path) -> None:
        """Keep what its Whisper hears, if it has one; see `System.keep_transcripts`."""
        self.system.keep_transcripts(store_root)

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


class EnrollingTorchModel(TorchModel):
    """A trained system that adapts to voices, as `TorchModel`."""

    def __init__(
        self,
        system: System,
        enroller: EnrollingSystem,
        prior: SpeakerPrior,
        origin: Mapping[str, object],
        *,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(system, origin, temperature=temperature)
        self._enroller = enroller
        self.prior = prior

    def summarise(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What `SpeakerPrior.hear` takes of waveforms, one for each."""
        return self._enroller.summarise(waveforms)

    def predict_enrolled(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None]
    ) -> np.ndarray:
        """Calibrated probabilities, each waveform of its voice [shape=(n_waveforms, n_labels)]."""
        return self._calibrated(self._enroller.predict_enrolled(waveforms, voices))


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
    from koser.systems.system import EnrollingSystem, ReadingSystem

    checkpoint = Checkpoint.read(find_checkpoint(model))
    for part, name in moved.items():
        checkpoint = checkpoint.with_model(part, str(name))
    system = system_class(checkpoint.system).from_checkpoint(checkpoint)
    if isinstance(system, ReadingSystem):
        return ReadingTorchModel(
            system, system, checkpoint.origin, temperature=checkpoint.temperature
        )
    if isinstance(system, EnrollingSystem) and system.prior is not None:
        return EnrollingTorchModel(
            system, system, system.prior, checkpoint.origin, temperature=checkpoint.temperature
        )
    return TorchModel(system, checkpoint.origin, temperature=checkpoint.temperature)
