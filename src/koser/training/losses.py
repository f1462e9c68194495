"""What training minimises: a weighted mean of cross-entropies over the utterances of a step.

Each part of a step gives its share of the numerator (`weighted_loss`) and of the denominator
(`weight_of`), so that a step in several parts, or in several processes, has the gradient of
one large batch.

Targets are distributions. With one-hot ones the cross-entropy is that of labels; with the
raters' shares it is the Kullback-Leibler divergence of the answer from them, plus their own
entropy, which no network can change.

An utterance weighs as much as the classes of its target do on average. The weight multiplies
the whole loss of the utterance, not the terms of single classes (as `torch.nn.functional.
cross_entropy` does with probabilities): so the loss is least where the answer is the raters'
distribution, whatever the weights. With one-hot targets both are the same.
"""

from __future__ import annotations

import numpy as np
import torch

from koser.training.options import TrainOptions


def class_weights(shares: np.ndarray, options: TrainOptions) -> torch.Tensor:
    """How much each class counts in the loss.

    Parameters
    ----------
    shares : np.ndarray [shape=(n_classes,)]
        Share of each class in the train part: of the labels, or of the votes.
    options : TrainOptions
        Whether classes are weighed at all.

    Returns
    -------
    torch.Tensor [shape=(n_classes,)]
        float32.
    """
    known = torch.as_tensor(shares, dtype=torch.float32)
    if not options.class_weights:
        return torch.ones_like(known)
    # A class that the train part lacks has no utterance to weigh.
    return torch.where(known > 0, 1.0 / known.clamp_min(1e-12), 0.0) / (known > 0).sum()


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each utterance in nats [shape=(batch,)]."""
    return -(targets * logits.log_softmax(1)).sum(1)


def weight_of(targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weight of each utterance: the mean weight of its classes [shape=(batch,)]."""
    return targets @ weights


def weighted_loss(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Sum over a batch of what is minimised; divide it by the weight of the whole step.

    Parameters
    ----------
    logits, targets : torch.Tensor [shape=(batch, n_classes)]
        What the network says, and what it should.
    weights : torch.Tensor [shape=(n_classes,)]
        Of each class.
    smoothing : float in [0, 1)
        Share of the targets that is spread over all classes; it does not change the weights.
    """
    smoothed = targets * (1.0 - smoothing) + smoothing / targets.shape[1]
    return (cross_entropy(logits, smoothed) * weight_of(targets, weights)).sum()
