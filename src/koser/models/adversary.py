"""A network that must not know which corpus it hears: adversarial training by gradient reversal.

Ganin & Lempitsky, "Unsupervised domain adaptation by backpropagation", ICML 2015: a second
classifier learns to tell the corpora apart from what the network has made of its input, and the
network learns, through the reversed gradient, to make that impossible. Only training has it; the
trained network is an ordinary one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_STEEPNESS = 10.0  # of the schedule, as in the paper
_HIDDEN_SIZE = 64  # of the adversary


class AdversarialNetwork(nn.Module):
    """A network in training, beside one that tells its corpora apart.

    Parameters
    ----------
    network : nn.Module
        Maps inputs to logits.
    representation : nn.Module
        A part of it; what that part is given is what should not betray the corpus.
    width : int
        Values of it.
    origins : np.ndarray [shape=(n_utterances of the table,)]
        Corpus of each utterance, from 0.
    strength : float > 0
        What the reversed gradient is multiplied by at the end of the training.
    """

    def __init__(
        self,
        network: nn.Module,
        representation: nn.Module,
        width: int,
        *,
        origins: np.ndarray,
        strength: float,
    ) -> None:
        super().__init__()
        self.network = network
        self._origins, self._strength = origins, strength
        n_corpora = int(origins.max()) + 1
        self.adversary = nn.Sequential(
            nn.Linear(width, _HIDDEN_SIZE), nn.ReLU(), nn.Linear(_HIDDEN_SIZE, n_corpora)
        )
        self._heard: list[torch.Tensor] = []
        self._hook = representation.register_forward_pre_hook(self._listen)

    def _listen(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._heard = [inputs[0]] if self.training else []

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits of the network."""
        logits: torch.Tensor = self.network(*inputs)
        return logits

    def adversary_loss(self, rows: np.ndarray, progress: float) -> torch.Tensor:
        """Sum over the batch that `forward` saw last of what the adversary's answers cost, in nats.

        Its gradient trains the adversary, and reversed the network.

        Parameters
        ----------
        rows : np.ndarray [shape=(batch,)]
            Which utterances these are.
        progress : float in [0, 1]
            Share of the training that is over: the reversal grows from nothing to its strength.
        """
        (heard,) = self._heard
        self._heard = []
        factor = self._strength * schedule(progress)
        origins = torch.from_numpy(self._origins[rows]).to(heard.device)
        logits = self.adversary(reverse_gradient(heard.float(), factor))
        return functional.cross_entropy(logits, origins, reduction="sum")

    def penalty(self) -> torch.Tensor:
        """The network's own, or none."""
        own = getattr(self.network, "penalty", None)
        if own is not None:
            value: torch.Tensor = own()
            return value
        return 0.0 * next(self.adversary.parameters()).sum()  # nothing, with a gradient of it

    def release(self) -> None:
        """Leave the trained network as an ordinary one."""
        self._hook.remove()

    def extra_repr(self) -> str:
        """What a resumed training must have in common."""
        return f"strength={self._strength:g}"


def schedule(progress: float) -> float:
    """Share of the reversal's strength after a share of the training (Ganin & Lempitsky, eq. 14).

    Examples
    --------
    >>> schedule(0.0), round(schedule(0.1), 3), round(schedule(1.0), 4)
    (0.0, 0.462, 0.9999)
    """
    return 2.0 / (1.0 + math.exp(-_STEEPNESS * progress)) - 1.0


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -ctx.factor * gradient, None


def reverse_gradient(values: torch.Tensor, factor: float) -> torch.Tensor:
    """`values` themselves, whose gradient is multiplied by minus `factor`."""
    reversed_: torch.Tensor = _Reversal.apply(values, factor)  # type: ignore[no-untyped-call]
    return reversed_
