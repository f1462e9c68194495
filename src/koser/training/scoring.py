"""What a network makes of a part: probabilities, and the scores that training watches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from koser.errors import RunError
from koser.training.batches import Batch
from koser.training.devices import compute_logits
from koser.training.losses import cross_entropy
from koser.training.options import Precision
from koser.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Scores:
    """How a network does on a part: what training watches, not what is reported."""

    loss: float
    accuracy: float
    uar: float


def score(
    network: torch.nn.Module,
    batches: Iterable[Batch],
    *,
    precision: Precision = "auto",
    ranks: Ranks = ALONE,
) -> Scores:
    """Loss, accuracy and UAR of `network` over the `batches` of all `ranks`, the same on each.

    UAR here is over the classes that the part has: it ranks epochs of one training.
    """
    network.eval()
    loss, n_utterances = 0.0, 0
    counts: torch.Tensor | None = None
    with torch.inference_mode():
        for batch in batches:
            logits = compute_logits(network, batch.inputs, precision).cpu()
            loss += float(cross_entropy(logits, batch.targets).sum())
            n_utterances += len(logits)
            if counts is None:
                counts = torch.zeros(logits.shape[1], 2)
            y_true, y_pred = batch.targets.argmax(1), logits.argmax(1)
            counts[:, 0] += torch.bincount(y_true, minlength=len(counts))
            counts[:, 1] += torch.bincount(y_true[y_true == y_pred], minlength=len(counts))
    # A rank that had no batch does not know how many classes there are.
    n_classes = ranks.largest(0 if counts is None else len(counts))
    if n_classes == 0:
        raise RunError("There is nothing to score: the part is empty.")
    counts = torch.zeros(n_classes, 2) if counts is None else counts
    counts = torch.from_numpy(ranks.sum_array(counts.numpy()))
    loss, n_utterances = ranks.sum_array(np.array([loss, n_utterances], np.float64)).tolist()
    present = counts[counts[:, 0] > 0]
    return Scores(
        loss=loss / n_utterances,
        accuracy=float(counts[:, 1].sum() / counts[:, 0].sum()),
        uar=float((present[:, 1] / present[:, 0]).mean()),
    )


def predict(
    network: torch.nn.Module,
    batches: Iterable[Batch],
    n_rows: int,
    *,
    precision: Precision = "auto",
    ranks: Ranks = ALONE,
) -> np.ndarray:
    """Probabilities of every row of the `batches` of all `ranks`, the same on each.

    Parameters
    ----------
    network : torch.nn.Module
        Maps the inputs of a batch to logits.
    batches : Iterable[Batch]
        Their `rows` say where a result belongs.
    n_rows : int
        Rows of the whole table.
    precision : {'auto', 'float32', 'bf16'}
        Of the network, as in training.
    ranks : Ranks
        The processes that have batches; each row is in one batch of one of them.

    Returns
    -------
    np.ndarray [shape=(n_rows, n_classes)]
        float64; NaN in rows that no batch holds.
    """
    network.eval()
    probabilities: np.ndarray | None = None
    with torch.inference_mode():
        for batch in batches:
            logits = compute_logits(network, batch.inputs, precision)
            result = logits.double().softmax(1).cpu().numpy()
            if probabilities is None:
                probabilities = np.full((n_rows, result.shape[1]), np.nan)
            probabilities[batch.rows] = result
    n_classes = ranks.largest(0 if probabilities is None else probabilities.shape[1])
    if n_classes == 0:
        raise RunError("There is nothing to predict: the part is empty.")
    if ranks.is_alone and probabilities is not None:
        return probabilities
    if probabilities is None:
        probabilities = np.full((n_rows, n_classes), np.nan)
    is_known = ranks.sum_array((~np.isnan(probabilities[:, 0])).astype(np.int64))
    summed = ranks.sum_array(np.nan_to_num(probabilities))
    return np.where(is_known[:, None], summed, np.nan)
