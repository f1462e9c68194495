"""What the systems on a pretrained speech encoder have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from pydantic import Field

from koser.audio.reading import Clip
from koser.config import Config
from koser.data.enrolment import Enrolment
from koser.features.speech.loading import EncoderOptions, LoadedEncoder, load_encoder
from koser.models.checkpoint import Checkpoint, trained_state
from koser.models.heads import StateClassifier, StateMapping
from koser.systems.system import ParameterCount, System
from koser.systems.variants import StoredVariants
from koser.training.batches import Batch
from koser.training.corpora import Origins
from koser.training.devices import is_bf16
from koser.training.options import Precision, TrainedConfig, TrainOptions

logger = logging.getLogger(__name__)

# Of every encoder that koser knows: a frame is 20 ms. Counting needs no encoder in memory.
FRAMES_PER_SECOND = 50


class SpeechConfig(TrainedConfig):
    """Settings that both systems have."""

    encoder: EncoderOptions = EncoderOptions()


class HeadTrain(TrainOptions):
    """How the head learns."""

    epochs: int = Field(100, gt=0)
    # None is saved: epochs cost seconds, and the head is good when its rate has fallen.
    patience: int = Field(100, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    batch_size: int = Field(32, gt=0)  # utterances


class ProbeTrain(HeadTrain):
    """How the head of an encoder that is fine-tuned learns alone first."""

    # Its batches are no setting of the system.
    if_memory_ends: ClassVar[str | None] = (
        "The head was learning alone, on the pretrained states. Let it begin with the layers "
        "(--set probe_epochs=0), or give it fewer states (--set head.layers=last)."
    )


ConfigT = TypeVar("ConfigT", bound=TrainedConfig)


@dataclass(frozen=True)
class SpeechData:
    """Where a manifest's features lie, and what they should be recognised as.

    Attributes
    ----------
    variants : StoredVariants or None
        What is stored of the encoder's states; None where training starts from sound.
    targets : np.ndarray [shape=(n_utterances, n_labels)]
        float32 target distributions.
    encoder : EncoderOptions
        The encoder, with the fingerprint of its weights.
    facts : dict
        What a report should say of the encoder.
    origins : Origins
        Which corpus each utterance is of.
    clips : tuple[Clip, ...]
        The utterances themselves, where training may start from sound.
    durations : np.ndarray [shape=(n_utterances,)]
        Their lengths in seconds, with `clips`.
    enrolment : Enrolment or None
        Who is enrolled with what, where anybody is.
    """

    variants: StoredVariants | None
    targets: np.ndarray
    encoder: EncoderOptions
    facts: dict[str, Any]
    origins: Origins
    clips: tuple[Clip, ...] = ()
    durations: np.ndarray = field(default_factory=lambda: np.zeros(0))
    enrolment: Enrolment | None = None


class SpeechSystem(System):
    """A system on a pretrained encoder.

    A checkpoint holds what was trained, and the name and fingerprint of the encoder: its
    weights are where they came from, checked when they are loaded.
    """

    config: Any  # a SpeechConfig; each system's own adds to it

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        super().__init__(labels, config)
        self._network: torch.nn.Module | None = None
        self._loaded: LoadedEncoder | None = None

    def count_parameters(self) -> ParameterCount:
        """How large the trained part is, and the encoder with it."""
        encoder = self._load(self.config.encoder).encoder
        return ParameterCount.of(self._trained(), encoder)

    @classmethod
    def describe_data(cls, data: SpeechData) -> dict[str, Any]:
        """The encoder, for metrics and report."""
        return data.facts

    def _load(self, options: EncoderOptions) -> LoadedEncoder:
        """The encoder, loaded once and pinned by its fingerprint from then on."""
        if self._loaded is None or self._loaded.options != options:
            self._loaded = load_encoder(options)
            self.config = self.config.model_copy(update={"encoder": self._loaded.options})
        return self._loaded

    def _trained(self) -> torch.nn.Module:
        if self._network is None:
            raise RuntimeError("The system is neither trained nor loaded.")
        return self._network

    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The trained part as a checkpoint."""
        state = {name: tensor.cpu() for name, tensor in trained_state(self._trained()).items()}
        config = self.config.model_dump(mode="json")
        return Checkpoint(self.name, self.labels, config, origin, state)


def iter_pooled(
    network: Any, batches: Iterable[Batch], precision: Precision
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What a head's classifier is given, without dropout.

    Parameters
    ----------
    network : nn.Module
        With a `pool` that takes a batch's inputs.
    batches : Iterable[Batch]
        Utterances, unaugmented.
    precision : {'auto', 'float32', 'bf16'}
        Of the network, as in training.

    Yields
    ------
    rows : np.ndarray [shape=(batch,)]
        Which utterances.
    pooled : np.ndarray [shape=(batch, n_states, n_values)]
        float32.
    """
    network.eval()
    device = next(network.parameters()).device
    is_half = is_bf16(precision, device)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=is_half):
        for batch in batches:
            pooled = network.pool(*[tensor.to(device) for tensor in batch.inputs])
            yield batch.rows, pooled.float().cpu().numpy()


def head_outputs(classifier: StateClassifier) -> dict[str, int]:
    """The tensors of a network's ``classifier`` with a slice for each label, and its axis."""
    if classifier.hidden is None:
        return {"classifier.maps": 2, "classifier.bias": 0}
    last = f"classifier.hidden.{len(classifier.hidden) - 1}"
    return {f"{last}.weight": 0, f"{last}.bias": 0}


def log_layer_weights(mapping: StateMapping) -> None:
    """Say how far each state is trusted: what was learned of the encoder."""
    weights = ", ".join(f"{weight:.2f}" for weight in mapping.weights.tolist())
    logger.info("learned weights of the states it takes: %s", weights)


def on_this_machine(config: ConfigT) -> ConfigT:
    """A trained system's configuration, on a GPU only where there is one.

    ``train.device = "cuda"`` is what training wanted; the model predicts anywhere.
    """
    if config.train.device != "cuda":
        return config
    return config.model_copy(update={"train": config.train.model_copy(update={"device": "auto"})})
