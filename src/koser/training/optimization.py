"""What is learnt, and how fast."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from koser.errors import RunError
from koser.training.options import TrainOptions


@runtime_checkable
class GroupedParameters(Protocol):
    """A network whose parts learn at different rates."""

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters, and the factor on the learning rate they learn with.

        Every parameter that requires gradients is in one group; others may be in any.
        """
        ...


@runtime_checkable
class Penalized(Protocol):
    """A network whose loss has a term of its own."""

    def penalty(self) -> torch.Tensor:
        """Added to the loss of every step, which is a mean over utterances."""
        ...


@runtime_checkable
class Adversarial(Protocol):
    """A network that has to hide something of the utterances that it hears."""

    def adversary_loss(self, rows: np.ndarray, progress: float) -> torch.Tensor:
        """Added to the loss of a step, as a mean over its utterances.

        Parameters
        ----------
        rows : np.ndarray [shape=(batch,)]
            The utterances of the last forward pass.
        progress : float in [0, 1]
            Share of the training that is over.

        Returns
        -------
        torch.Tensor
            Sum over the utterances.
        """
        ...


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn, in the network's order."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def make_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW that decays weights, not biases and gains: these have no scale to keep small.

    Parameters
    ----------
    network : nn.Module
        If it has `parameter_groups`, each learns at its own rate; otherwise all that
        requires gradients learns at the same.
    options : TrainOptions
        Learning rate and decay.

    Returns
    -------
    torch.optim.Optimizer
        Without frozen parameters.

    Raises
    ------
    RunError
        If nothing is to be learnt, or a parameter that should learn is in no group.
    """
    trained = trained_parameters(network)
    if not trained:
        raise RunError("The network has no parameter to learn: all are frozen. Unfreeze some.")
    grouped = [(trained, 1.0)]
    if isinstance(network, GroupedParameters):
        grouped = network.parameter_groups()
        places = {id(parameter) for parameters, _ in grouped for parameter in parameters}
        n_missing = sum(id(parameter) not in places for parameter in trained)
        if n_missing:
            raise RunError(
                f"{n_missing} of {len(trained)} parameters that should learn are in none of the "
                f"network's parameter_groups(). Add or freeze them."
            )
    groups = []
    for parameters, factor in grouped:
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        for is_weight, decay in ((True, options.weight_decay), (False, 0.0)):
            chosen = [parameter for parameter in learning if (parameter.dim() > 1) == is_weight]
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "factor": factor})
    # "fused": one call for all parameters, which small networks spend much of a step in.
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Let every group learn at `learning_rate`, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["factor"]
