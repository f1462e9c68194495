"""How far a training has come, in memory and in the file that it resumes from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from koser.errors import RunError
from koser.models.checkpoint import (
    load_tensors,
    load_trained_state,
    read_tensors,
    save_tensors,
    trained_state,
)
from koser.training.options import TrainOptions
from koser.training.ranks import Ranks

_MAX_SAVING_SHARE = 0.05  # of the time; a kill loses what takes 20 times as long as a saving


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


@dataclass
class Progress:
    """What a training has come to, in memory and in its resume file.

    Attributes
    ----------
    fingerprint : str
        Of all that must be equal for a resumed training to be the same one.
    history : list[Epoch]
        Every epoch so far.
    best_epoch : int
        Which one counts, from 1; 0 before the first.
    best_state : dict[str, torch.Tensor]
        Its weights, on the CPU.
    saved_at, saving_seconds : float
        When the file was last written, and how long that took.
    """

    fingerprint: str
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    saved_at: float = -math.inf
    saving_seconds: float = 0.0

    def is_over(self, options: TrainOptions, *, has_val: bool) -> bool:
        """Whether no epoch is left, or no better one came within the patience."""
        n_done = len(self.history)
        if n_done >= options.epochs:
            return True
        return has_val and n_done > 0 and n_done - self.best_epoch >= options.patience

    def add(self, record: Epoch, network: torch.nn.Module) -> None:
        """Add an epoch, after which `network` is as it is."""
        self.history.append(record)
        if self.best_epoch == 0 or _rank(record) >= _rank(self.history[self.best_epoch - 1]):
            self.best_epoch = record.epoch
            self.best_state = {
                name: tensor.cpu().clone() for name, tensor in trained_state(network).items()
            }

    def save(self, file: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write `file`, unless the last time is too short ago for what it took."""
        started = time.perf_counter()
        # A small network's epoch may take no longer than a file that survives a power cut.
        if started - self.saved_at < self.saving_seconds / _MAX_SAVING_SHARE:
            return
        values = {
            "fingerprint": self.fingerprint,
            "history": [asdict(record) for record in self.history],
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "network": trained_state(network),
            "optimizer": optimizer.state_dict(),
        }
        save_tensors(values, file)
        self.saved_at = time.perf_counter()
        self.saving_seconds = self.saved_at - started

    def resume(
        self,
        file: Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
    ) -> None:
        """Go on from `file`, which rank 0 reads for all; from the start if there is none."""
        if ranks.is_alone:
            if file.exists():
                self._load(load_tensors(file), file, network, optimizer)
            return
        content = file.read_bytes() if ranks.is_first and file.exists() else b""
        if content := ranks.bytes_from_first(content):
            self._load(read_tensors(content, file), file, network, optimizer)

    def _load(
        self,
        values: dict[str, Any],
        file: Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        if values.get("fingerprint") != self.fingerprint:
            raise RunError(
                f"'{file}' belongs to a training with other settings or data. "
                f"Resume with the original ones, or train into another folder."
            )
        self.history = [Epoch(**record) for record in values["history"]]
        self.best_epoch = values["best_epoch"]
        self.best_state = values["best_state"]
        load_trained_state(network, values["network"])
        optimizer.load_state_dict(values["optimizer"])


def _rank(record: Epoch) -> tuple[float, float]:
    """Higher is better. Without a val part all epochs are equal, and the last one counts."""
    if record.val_uar is None or record.val_loss is None:
        return (0.0, 0.0)
    return (record.val_uar, -record.val_loss)
