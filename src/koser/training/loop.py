"""The training loop, in the order in which things happen.

Every random draw of an epoch comes from the seed and the epoch's number, so a run
that was killed and resumed goes on bit for bit like one that was not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import Field

from koser.config import Config
from koser.errors import RunError
from koser.models.checkpoint import load_tensors, save_tensors
from koser.training.batches import Batch

logger = logging.getLogger(__name__)


class TrainOptions(Config):
    """How long and how fast to learn."""

    epochs: int = Field(60, gt=0)  # at most; exactly so many where there is no val part
    # Epochs without a better val UAR before stopping. Half of all, because most of the gain
    # comes late, when the learning rate falls.
    patience: int = Field(30, gt=0)
    batch_size: int = Field(32, gt=0)  # utterances
    learning_rate: float = Field(4e-3, gt=0)  # peak
    warmup: float = Field(0.2, ge=0, lt=1)  # share of all steps with a rising learning rate
    weight_decay: float = Field(1e-2, ge=0)
    clip_norm: float = Field(5.0, gt=0)  # largest norm of the gradient
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    class_weights: bool = True  # weigh a class by the inverse of its share of the train part
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # Of torch on a CPU: a setting, not what the machine has, because results depend on it.
    n_threads: int = Field(1, gt=0)


class TrainingSource(Protocol):
    """Where the batches of an epoch come from."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def epoch(self, epoch: int) -> Iterable[Batch]:
        """Batches of one epoch, the same whenever it is asked for."""
        ...

    def describe(self) -> str:
        """Identify all that the batches depend on."""
        ...

    def class_shares(self) -> np.ndarray:
        """Share of each class [shape=(n_classes,)]."""
        ...


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Losses are mean cross-entropies. The train part's scores are taken while the network
    learns, under augmentation and dropout, so they lag behind the val part's.
    """

    epoch: int  # from 1
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    val_uar: float | None
    seconds: float


@dataclass(frozen=True)
class Fit:
    """A finished training.

    Attributes
    ----------
    history : tuple[Epoch, ...]
        Every epoch.
    best_epoch : int
        The one whose weights the network now has.
    """

    history: tuple[Epoch, ...]
    best_epoch: int

    @property
    def best(self) -> Epoch:
        """The chosen epoch's record."""
        return self.history[self.best_epoch - 1]


# Called after every epoch.
OnEpoch = Callable[[Epoch], None]


def fit(
    network: torch.nn.Module,
    source: TrainingSource,
    val_batches: Callable[[], Iterable[Batch]] | None,
    options: TrainOptions,
    *,
    seed: int,
    resume_file: Path,
    on_epoch: OnEpoch | None = None,
) -> Fit:
    """Train `network` in place and leave it with its best weights.

    The best epoch has the highest val UAR, and among equals the lowest val loss.
    Without a val part every epoch runs and the last one counts.

    Parameters
    ----------
    network : torch.nn.Module
        Maps ``(features, n_frames)`` to logits.
    source : TrainingSource
        The train part.
    val_batches : Callable or None
        Yields the val part; None where there is none.
    options : TrainOptions
        How to train.
    seed : int
        Of dropout and augmentation.
    resume_file : Path
        Written after every epoch; if it exists, training goes on from there.
    on_epoch : Callable, optional
        Told of every epoch, for progress.

    Raises
    ------
    RunError
        If the loss is no longer finite, or `resume_file` is of another training.
    """
    device = choose_device(options.device)
    network.to(device)
    optimizer = _optimizer(network, options)
    class_weights = _class_weights(source, options).to(device)
    identity = f"{seed} {options.model_dump_json()} {source.describe()} {network!r}"
    progress = _Progress(hashlib.blake2b(identity.encode(), digest_size=16).hexdigest())
    if resume_file.exists():
        progress.load(resume_file, network, optimizer)

    while not progress.is_over(options, has_val=val_batches is not None):
        started = time.perf_counter()
        epoch = len(progress.history) + 1
        with torch.random.fork_rng():
            torch.manual_seed(_epoch_seed(seed, epoch))
            train = _train_epoch(network, optimizer, source, class_weights, options, epoch)
        val = None if val_batches is None else score(network, val_batches(), device)
        record = Epoch(
            epoch=epoch,
            learning_rate=learning_rate_at(epoch / options.epochs, options),
            train_loss=train[0],
            train_accuracy=train[1],
            val_loss=None if val is None else val.loss,
            val_accuracy=None if val is None else val.accuracy,
            val_uar=None if val is None else val.uar,
            seconds=time.perf_counter() - started,
        )
        progress.add(record, network)
        progress.save(resume_file, network, optimizer)
        logger.info("epoch %s", json.dumps(asdict(record)))
        if on_epoch is not None:
            on_epoch(record)

    network.load_state_dict(progress.best_state)
    network.eval()
    return Fit(tuple(progress.history), progress.best_epoch)


@dataclass
class _Progress:
    """What a training has come to, in memory and in its resume file."""

    fingerprint: str  # of all that must be equal for a resumed training to be the same one
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)

    def is_over(self, options: TrainOptions, *, has_val: bool) -> bool:
        n_done = len(self.history)
        if n_done >= options.epochs:
            return True
        return has_val and n_done > 0 and n_done - self.best_epoch >= options.patience

    def add(self, record: Epoch, network: torch.nn.Module) -> None:
        self.history.append(record)
        if self.best_epoch == 0 or _rank(record) >= _rank(self.history[self.best_epoch - 1]):
            self.best_epoch = record.epoch
            self.best_state = {
                name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()
            }

    def save(self, file: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        values = {
            "fingerprint": self.fingerprint,
            "history": [asdict(record) for record in self.history],
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        save_tensors(values, file)

    def load(self, file: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        values = load_tensors(file)
        if values.get("fingerprint") != self.fingerprint:
            raise RunError(
                f"'{file}' belongs to a training with other settings or data. "
                f"Resume with the original ones, or train into another folder."
            )
        self.history = [Epoch(**record) for record in values["history"]]
        self.best_epoch = values["best_epoch"]
        self.best_state = values["best_state"]
        network.load_state_dict(values["network"])
        optimizer.load_state_dict(values["optimizer"])


def _rank(record: Epoch) -> tuple[float, float]:
    """Higher is better. Without a val part all epochs are equal, and the last one counts."""
    if record.val_uar is None or record.val_loss is None:
        return (0.0, 0.0)
    return (record.val_uar, -record.val_loss)


@dataclass(frozen=True)
class Scores:
    """How a network does on a part: what training watches, not what is reported."""

    loss: float
    accuracy: float
    uar: float


def score(network: torch.nn.Module, batches: Iterable[Batch], device: torch.device) -> Scores:
    """Loss, accuracy and UAR of `network` over `batches`.

    UAR here is over the classes that the part has: it ranks epochs of one training.
    """
    network.eval()
    loss, n_utterances = 0.0, 0
    counts: torch.Tensor | None = None
    with torch.inference_mode():
        for batch in batches:
            logits = network(batch.features.to(device), batch.n_frames.to(device)).cpu()
            loss += float(_cross_entropy(logits, batch.targets).sum())
            n_utterances += len(logits)
            if counts is None:
                counts = torch.zeros(logits.shape[1], 2)
            y_true, y_pred = batch.targets.argmax(1), logits.argmax(1)
            counts[:, 0] += torch.bincount(y_true, minlength=len(counts))
            counts[:, 1] += torch.bincount(y_true[y_true == y_pred], minlength=len(counts))
    if counts is None:
        raise RunError("There is nothing to score: the part is empty.")
    present = counts[counts[:, 0] > 0]
    return Scores(
        loss=loss / n_utterances,
        accuracy=float(counts[:, 1].sum() / counts[:, 0].sum()),
        uar=float((present[:, 1] / present[:, 0]).mean()),
    )


def predict(network: torch.nn.Module, batches: Iterable[Batch], n_rows: int) -> np.ndarray:
    """Probabilities of every row of `batches`.

    Parameters
    ----------
    network : torch.nn.Module
        Maps ``(features, n_frames)`` to logits.
    batches : Iterable[Batch]
        Their `rows` say where a result belongs.
    n_rows : int
        Rows of the whole table.

    Returns
    -------
    np.ndarray [shape=(n_rows, n_classes)]
        float64; NaN in rows that no batch holds.
    """
    network.eval()
    device = next(network.parameters()).device
    probabilities: np.ndarray | None = None
    with torch.inference_mode():
        for batch in batches:
            logits = network(batch.features.to(device), batch.n_frames.to(device))
            result = logits.double().softmax(1).cpu().numpy()
            if probabilities is None:
                probabilities = np.full((n_rows, result.shape[1]), np.nan)
            probabilities[batch.rows] = result
    if probabilities is None:
        raise RunError("There is nothing to predict: the part is empty.")
    return probabilities


def learning_rate_at(progress: float, options: TrainOptions) -> float:
    """Learning rate after a share of all steps: a linear rise, then half a cosine to zero.

    Examples
    --------
    >>> learning_rate_at(0.1, TrainOptions(learning_rate=1e-3, warmup=0.1))
    0.001
    """
    if progress < options.warmup:
        return options.learning_rate * progress / options.warmup
    rest = (progress - options.warmup) / (1.0 - options.warmup)
    return float(options.learning_rate * 0.5 * (1.0 + np.cos(np.pi * rest)))


def choose_device(name: str) -> torch.device:
    """Resolve ``auto`` to the GPU if there is one.

    Raises
    ------
    RunError
        If a GPU is asked for and none is there.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise RunError("No CUDA device is available. Train with --set train.device=cpu.")
    return torch.device("cuda" if name != "cpu" and has_gpu else "cpu")


def _optimizer(network: torch.nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW that decays weights, not biases and gains: these have no scale to keep small."""
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [
        {"params": weights, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate)


def _train_epoch(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    source: TrainingSource,
    class_weights: torch.Tensor,
    options: TrainOptions,
    epoch: int,
) -> tuple[float, float]:
    """One pass over the train part; returns its mean loss and its accuracy."""
    network.train()
    device = class_weights.device
    loss_sum, n_correct, n_utterances = 0.0, 0, 0
    for step, batch in enumerate(source.epoch(epoch)):
        for group in optimizer.param_groups:
            share = (epoch - 1 + (step + 1) / len(source)) / options.epochs
            group["lr"] = learning_rate_at(share, options)
        targets = batch.targets.to(device)
        logits = network(batch.features.to(device), batch.n_frames.to(device))
        smooth = options.label_smoothing
        smoothed = targets * (1.0 - smooth) + smooth / targets.shape[1]
        weights = targets @ class_weights
        loss = (_cross_entropy(logits, smoothed) * weights).sum() / weights.sum()
        if not torch.isfinite(loss):
            raise RunError(
                f"The loss is {loss.item()} in epoch {epoch}. Lower the learning rate: "
                f"--set train.learning_rate={options.learning_rate / 10:g}"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        torch.nn.utils.clip_grad_norm_(network.parameters(), options.clip_norm)
        optimizer.step()
        with torch.no_grad():
            loss_sum += float(_cross_entropy(logits, targets).sum())
            n_correct += int((logits.argmax(1) == targets.argmax(1)).sum())
            n_utterances += len(logits)
    return loss_sum / n_utterances, n_correct / n_utterances


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -(targets * logits.log_softmax(1)).sum(1)


def _class_weights(source: TrainingSource, options: TrainOptions) -> torch.Tensor:
    shares = torch.as_tensor(source.class_shares(), dtype=torch.float32)
    if not options.class_weights:
        return torch.ones_like(shares)
    # A class that the train part lacks has no utterance to weigh.
    return torch.where(shares > 0, 1.0 / shares.clamp_min(1e-12), 0.0) / (shares > 0).sum()


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
