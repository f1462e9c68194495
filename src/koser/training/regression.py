"""Learning values instead of labels: the losses, and the loop in the order in which things happen.

A target is a value per dimension, standardised by the train part alone (`ValueScaler`). As in
`koser.training.loop`, every random draw of an epoch comes from the seed and the epoch's number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from koser.errors import RunError
from koser.evaluation.dimensions import evaluate_values
from koser.models.checkpoint import load_trained_state, trained_state
from koser.training.batches import Batch, TrainingBatches
from koser.training.devices import choose_device, compute_logits, explained_memory_errors
from koser.training.optimization import (
    Penalized,
    make_optimizer,
    set_learning_rate,
    trained_parameters,
)
from koser.training.options import Precision, TrainOptions, learning_rate_at

logger = logging.getLogger(__name__)

ValueLoss = Literal["ccc", "mse", "ccc+mse"]


@dataclass(frozen=True, eq=False)
class ValueScaler:
    """Values with mean 0 and variance 1 on the train part, and back.

    Attributes
    ----------
    mean, scale : np.ndarray [shape=(n_dimensions,)]
        Of the train part.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> ValueScaler:
        """Measure the train part's values [shape=(n_utterances, n_dimensions)].

        Raises
        ------
        RunError
            If a dimension has one value only.
        """
        scale = values.std(axis=0)
        if not (scale > 0).all():
            raise RunError("All values of a dimension are the same in the train part.")
        return cls(values.mean(axis=0), scale)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values as the network learns them; float32."""
        scaled: np.ndarray = ((values - self.mean) / self.scale).astype(np.float32)
        return scaled

    def restored(self, outputs: np.ndarray) -> np.ndarray:
        """The network's outputs as values; float64."""
        values: np.ndarray = outputs * self.scale + self.mean
        return values


@dataclass(frozen=True)
class ValueEpoch:
    """What one epoch came to; CCC is the mean over dimensions."""

    epoch: int  # from 1
    train_loss: float
    val_ccc: float | None


@dataclass(frozen=True)
class ValueFit:
    """A finished training: every epoch, and the one whose weights the network has."""

    history: tuple[ValueEpoch, ...]
    best_epoch: int

    @property
    def best(self) -> ValueEpoch:
        """The chosen epoch's record."""
        return self.history[self.best_epoch - 1]


def value_loss(outputs: torch.Tensor, targets: torch.Tensor, kind: ValueLoss) -> torch.Tensor:
    """What is minimised, as a mean over the batch and its dimensions.

    Parameters
    ----------
    outputs, targets : torch.Tensor [shape=(batch, n_dimensions)]
        What the network says, and what it should.
    kind : {'ccc', 'mse', 'ccc+mse'}
        One minus Lin's concordance correlation over the batch; the mean squared error; or the
        mean of both. The first needs batches that are large and mixed, because it compares their
        moments.
    """
    error = (outputs - targets).square().mean()
    if kind == "mse":
        return error
    concordance = 1.0 - concordance_of_batch(outputs, targets).mean()
    return concordance if kind == "ccc" else 0.5 * (concordance + error)


def concordance_of_batch(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Lin's concordance correlation of each dimension over a batch [shape=(n_dimensions,)]."""
    mean_output, mean_target = outputs.mean(0), targets.mean(0)
    output, target = outputs - mean_output, targets - mean_target
    covariance = (output * target).mean(0)
    spread = output.square().mean(0) + target.square().mean(0)
    # A batch of one, or of equals, has no concordance; the floor makes it 0.
    return 2.0 * covariance / (spread + (mean_output - mean_target).square()).clamp_min(1e-8)


def fit_values(
    network: torch.nn.Module,
    source: TrainingBatches,
    val_batches: Callable[[], Iterable[Batch]] | None,
    options: TrainOptions,
    *,
    loss: ValueLoss,
    seed: int,
) -> ValueFit:
    """Train `network` in place and leave it with its best weights.

    The best epoch has the highest val CCC, as a mean over dimensions. Without a val part every
    epoch runs and the last one counts.

    Parameters
    ----------
    network : torch.nn.Module
        Maps the inputs of a batch to outputs [shape=(batch, n_dimensions)].
    source : TrainingBatches
        The train part; its targets are scaled values.
    val_batches : Callable or None
        Yields the val part; None where there is none.
    options : TrainOptions
        How to train. Of no meaning here: targets, label smoothing and class weights.
    loss : {'ccc', 'mse', 'ccc+mse'}
        See `value_loss`.
    seed : int
        Of dropout and augmentation.

    Raises
    ------
    RunError
        If the loss is no longer finite, the memory ends, or nothing is to be learnt.
    """
    network.to(choose_device(options.device))
    optimizer = make_optimizer(network, options)
    history: list[ValueEpoch] = []
    best_epoch, best_state = 0, trained_state(network)
    while len(history) < options.epochs:
        epoch = len(history) + 1
        with explained_memory_errors(options), torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
            train_loss = _train_epoch(network, optimizer, source, options, loss, epoch)
        val_ccc = None
        if val_batches is not None:
            val_ccc = _mean_ccc(network, val_batches(), options.precision)
        history.append(ValueEpoch(epoch, train_loss, val_ccc))
        best = history[best_epoch - 1].val_ccc if best_epoch else None
        if val_ccc is None or best is None or val_ccc >= best:
            best_epoch = epoch
            best_state = {name: each.cpu().clone() for name, each in trained_state(network).items()}
        logger.info("epoch %d: loss %.4f, val CCC %s", epoch, train_loss, val_ccc)
        if val_batches is not None and epoch - best_epoch >= options.patience:
            break
    load_trained_state(network, best_state)
    network.eval()
    return ValueFit(tuple(history), best_epoch)


def predict_values(
    network: torch.nn.Module, batches: Iterable[Batch], *, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of utterances, and which they are.

    Returns
    -------
    rows : np.ndarray [shape=(n_utterances,)]
        In the order of the batches.
    outputs : np.ndarray [shape=(n_utterances, n_dimensions)]
        float64.
    """
    network.eval()
    rows, outputs = [], []
    with torch.inference_mode():
        for batch in batches:
            rows.append(batch.rows)
            found = compute_logits(network, batch.inputs, precision)
            outputs.append(found.double().cpu().numpy())
    if not rows:
        raise RunError("There is nothing to predict: the part is empty.")
    return np.concatenate(rows), np.concatenate(outputs)


def _train_epoch(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    source: TrainingBatches,
    options: TrainOptions,
    kind: ValueLoss,
    epoch: int,
) -> float:
    """One pass over the train part; returns its mean loss."""
    network.train()
    trained, n_batches = trained_parameters(network), source.n_batches(epoch)
    total, n_utterances = 0.0, 0
    for number, batch in enumerate(source.epoch(epoch), start=1):
        progress = (epoch - 1 + number / n_batches) / options.epochs
        set_learning_rate(optimizer, learning_rate_at(progress, options))
        optimizer.zero_grad()
        outputs = compute_logits(network, batch.inputs, options.precision)
        loss = value_loss(outputs, batch.targets.to(outputs.device), kind)
        if not torch.isfinite(loss):
            raise RunError(
                f"The loss is {loss.item()} in epoch {epoch}. Lower the learning rate: "
                f"--set train.learning_rate={options.learning_rate / 10:g}"
            )
        total += float(loss.detach()) * len(outputs)
        n_utterances += len(outputs)
        if isinstance(network, Penalized):
            loss = loss + network.penalty()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        torch.nn.utils.clip_grad_norm_(trained, options.clip_norm)
        optimizer.step()
    return total / n_utterances


def _mean_ccc(network: torch.nn.Module, batches: Iterable[Batch], precision: Precision) -> float:
    """Mean CCC over dimensions; one that is undefined counts as 0, as a constant answer does."""
    heard: list[torch.Tensor] = []

    def remembered() -> Iterator[Batch]:
        for batch in batches:
            heard.append(batch.targets)
            yield batch

    _, outputs = predict_values(network, remembered(), precision=precision)
    targets = torch.cat(heard).double().numpy()
    if len(targets) < 2:
        raise RunError("The val part has one utterance: its CCC is undefined. Ask for more.")
    found = [
        evaluate_values(targets[:, place], outputs[:, place]).scores["ccc"].value or 0.0
        for place in range(targets.shape[1])
    ]
    return float(np.mean(found))
