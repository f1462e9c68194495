"""A training that starts from a trained model of the same system: domain pre-training.

The standardisation is the trained model's, and is not fitted again. Its weights know features on
that scale; another one would change what every unit answers before the first step, and the
running statistics of batch normalisation, which are weights too, would no longer belong to their
input.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from koser.config import Config
from koser.errors import CheckpointError, ConfigError
from koser.models.checkpoint import Checkpoint, load_trained_state, trained_state

logger = logging.getLogger(__name__)

# By system: the settings that decide what its weights are weights of.
_SHAPING = {
    "mfcc": ("mfcc", "cnn.n_bands", "cnn.channels", "cnn.hidden_size"),
    "wav2vec2": ("encoder.window_seconds", "head.layers", "head.pooling", "head.hidden"),
    "wav2vec2ft": (
        *("encoder.window_seconds", "head.layers", "head.pooling", "head.hidden"),
        *("tune.layers", "tune.lora_rank"),
    ),
}


@dataclass(frozen=True, eq=False)
class Start:
    """What a training starts from; picklable.

    Attributes
    ----------
    checkpoint : Checkpoint
        The trained model.
    about : dict
        Where it comes from, as JSON values: for records.
    """

    checkpoint: Checkpoint
    about: dict[str, Any]

    def kept_labels(self, labels: Sequence[str]) -> list[str]:
        """Those of `labels` that the trained model knows, and whose outputs are kept."""
        return [label for label in labels if label in self.checkpoint.labels]

    def note(self, labels: Sequence[str]) -> str:
        """What belongs beside the scores of a training of `labels`, in one sentence."""
        corpora = ", ".join(self.about["corpus"]) or "an unknown corpus"
        kept = ", ".join(self.kept_labels(labels)) or "no label"
        return (
            f"Training started from '{self.about['model']}', a model of {corpora} "
            f"({self.about['protocol']}, split {str(self.about['split_hash'])[:8]}): its "
            f"standardisation, its weights, and its outputs for {kept}."
        )

    def put_into(
        self, network: nn.Module, labels: Sequence[str], outputs: Mapping[str, int]
    ) -> None:
        """Give a new network the trained one's weights and standardisation.

        Parameters
        ----------
        network : nn.Module
            With weights of its own, which outputs of labels keep that the trained model lacks.
        labels : Sequence[str]
            Of its outputs.
        outputs : Mapping[str, int]
            Names of the tensors that have a slice for each label, and its axis.

        Raises
        ------
        CheckpointError
            If the trained network is another one.
        """
        own, state, then = trained_state(network), dict(self.checkpoint.state), self.checkpoint
        for name, axis in outputs.items():
            if name not in state or not _is_alike(own[name], state[name], axis):
                continue  # load_trained_state says what differs
            made = own[name].detach().clone()
            for place, label in enumerate(labels):
                if label in then.labels:
                    known = state[name].select(axis, then.labels.index(label))
                    made.select(axis, place).copy_(known)
            state[name] = made
        load_trained_state(network, state)
        new = [label for label in labels if label not in then.labels]
        logger.info(
            "started from %s: outputs kept for %s, new for %s; standardisation kept",
            self.about["model"],
            ", ".join(self.kept_labels(labels)) or "no label",
            ", ".join(new) or "none",
        )


def check_start(start: Start, system: str, config: Config) -> Config:
    """Refuse a trained model that a system with this configuration cannot start from.

    Returns
    -------
    Config
        The same, bound to the encoder that the trained model was trained with.

    Raises
    ------
    CheckpointError
        If it is a model of another system.
    ConfigError
        If the system cannot start from a trained model, or was configured otherwise.
    """
    if system not in _SHAPING:
        raise ConfigError(
            f"--init: system '{system}' cannot start from a trained model. Systems that can: "
            f"{', '.join(_SHAPING)}."
        )
    if start.checkpoint.system != system:
        raise CheckpointError(
            f"--init {start.about['model']} is a model of '{start.checkpoint.system}', and "
            f"'{system}' is to be trained. Give a model of the same system."
        )
    then, now = start.checkpoint.config, config.model_dump(mode="json")
    for key in _SHAPING[system]:
        if _at(then, key) != _at(now, key):
            raise ConfigError(
                f"--init {start.about['model']} was trained with {key} = {_at(then, key)}, and "
                f"this training has {_at(now, key)}: its weights fit no other. Use its setting "
                f"(--set {key}=… or --config), or pre-train with this one."
            )
    heard = then.get("enrolment", {}).get("k")  # older models have no such section
    if heard:
        raise ConfigError(
            f"--init {start.about['model']} was trained with enrolment (enrolment.k = {heard}): "
            f"its weights know features that are adapted to each speaker, and no training can "
            f"start from them. Pre-train without --enrol."
        )
    if "encoder" not in then:
        return config
    encoder: Any = getattr(config, "encoder")  # noqa: B009  # of the systems that have one
    bound = encoder.model_copy(update={"fingerprint": then["encoder"]["fingerprint"]})
    return config.model_copy(update={"encoder": bound})


def _at(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


def _is_alike(own: torch.Tensor, other: torch.Tensor, axis: int) -> bool:
    """Whether shapes agree but along `axis`."""
    if own.dim() != other.dim():
        return False
    axis %= own.dim()
    return all(
        one == two
        for place, (one, two) in enumerate(zip(own.shape, other.shape, strict=True))
        if place != axis
    )
