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
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from koser.errors import RunError
from koser.features.residence import Heap
from koser.models.checkpoint import load_trained_state, trained_state
from koser.models.cnn import has_shared_statistics, statistics_shared
from koser.training.batches import Batch
from koser.training.devices import (
    choose_device,
    compute_logits,
    explained_memory_errors,
    is_bf16,
)
from koser.training.draws import RowDraws, own_draws_noted
from koser.training.losses import class_weights, cross_entropy, weight_of, weighted_loss
from koser.training.optimization import (
    Adversarial,
    Penalized,
    make_optimizer,
    set_learning_rate,
    trained_parameters,
)
from koser.training.options import TrainOptions, learning_rate_at
from koser.training.progress import Epoch, Fit, OnEpoch, Progress
from koser.training.ranks import Ranks
from koser.training.scoring import score

logger = logging.getLogger(__name__)


class TrainingSource(Protocol):
    """Where the batches of an epoch come from."""

    @property
    def ranks(self) -> Ranks:
        """The processes that share every batch."""
        ...

    def n_batches(self, epoch: int) -> int:
        """Batches of one epoch, known before it begins; epochs may differ."""
        ...

    def epoch(self, epoch: int) -> Iterable[Batch]:
        """The share of this rank in each batch of one epoch, the same whenever asked for."""
        ...

    def describe(self) -> str:
        """Identify all that the batches depend on."""
        ...

    def class_shares(self) -> np.ndarray:
        """Share of each class [shape=(n_classes,)]."""
        ...


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
        Maps the inputs of a batch to logits. What does not require gradients stays as it
        is and is not kept; `koser.training.optimization.GroupedParameters` tells how
        parts learn at different rates.
    source : TrainingSource
        The train part.
    val_batches : Callable or None
        Yields the val part; None where there is none.
    options : TrainOptions
        How to train.
    seed : int
        Of dropout and augmentation; `TrainOptions.draws` says how.
    resume_file : Path
        Written after epochs, as often as takes a twentieth of the time; if it exists,
        training goes on from there.
    on_epoch : Callable, optional
        Told of every epoch, for progress.

    Notes
    -----
    Where several processes train together, the ranks of `source`, each has its own share of
    every batch in `source` and `val_batches`, and all end with the same network. Rank 0 alone
    reads and writes `resume_file`, and has the network that all start with.

    Raises
    ------
    RunError
        If the loss is no longer finite, the memory ends, nothing is to be learnt, or
        `resume_file` is of another training.
    """
    ranks = source.ranks
    device = ranks.use(choose_device(options.device))
    network.to(device)
    ranks.tensors_from_first(list(trained_state(network).values()))
    optimizer = make_optimizer(network, options)
    weights = class_weights(source.class_shares(), options).to(device)
    setting = _Setting(options, weights, ranks, seed, Heap())
    identity = f"{seed} {options.model_dump_json()} {source.describe()} {network!r}"
    progress = Progress(hashlib.blake2b(identity.encode(), digest_size=16).hexdigest())
    progress.resume(resume_file, network, optimizer, ranks)
    _log_start(network, source, options, device)

    while not progress.is_over(options, has_val=val_batches is not None):
        started = time.perf_counter()
        epoch = len(progress.history) + 1
        with explained_memory_errors(options):
            sum_over = None if ranks.is_alone else ranks.sum_with_gradient
            with torch.random.fork_rng(), statistics_shared(network, sum_over):
                torch.manual_seed(_epoch_seed(seed, epoch, ranks.rank))
                with own_draws_noted(ranks, options, device):
                    train = _train_epoch(network, optimizer, source, setting, epoch)
            val = None
            if val_batches is not None:
                val = score(network, val_batches(), precision=options.precision, ranks=ranks)
        ranks.check_agreement(trained_state(network).values(), f"The network after epoch {epoch}")
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
        if ranks.is_first:
            progress.save(resume_file, network, optimizer)
        logger.info("epoch %s", json.dumps(asdict(record)))
        if on_epoch is not None:
            on_epoch(record)

    if device.type == "cuda":
        logger.info("peak GPU memory %.2f GiB", torch.cuda.max_memory_allocated(device) / 2**30)
    load_trained_state(network, progress.best_state)
    network.eval()
    return Fit(tuple(progress.history), progress.best_epoch)


@dataclass(frozen=True)
class _Setting:
    """What every step of a training has in common."""

    options: TrainOptions
    weights: torch.Tensor  # of classes
    ranks: Ranks
    seed: int
    heap: Heap


def _train_epoch(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    source: TrainingSource,
    setting: _Setting,
    epoch: int,
) -> tuple[float, float]:
    """One pass over the train part; returns its mean loss and its accuracy."""
    options, ranks = setting.options, setting.ranks
    draws = RowDraws(setting.seed, epoch) if options.draws == "row" else None
    network.train()
    trained = trained_parameters(network)
    n_steps, step = _n_steps(source, options, epoch), 0
    batches = iter(source.epoch(epoch))
    sums = np.zeros(3)
    while group := list(islice(batches, options.accumulate)):
        step += 1
        progress = (epoch - 1 + step / n_steps) / options.epochs
        set_learning_rate(optimizer, learning_rate_at(progress, options))
        optimizer.zero_grad()
        sums += _add_gradients(network, group, setting, draws, epoch, progress)
        ranks.sum_gradients(trained)
        if isinstance(network, Penalized):
            network.penalty().backward()  # type: ignore[no-untyped-call]  # torch does not type it
        torch.nn.utils.clip_grad_norm_(trained, options.clip_norm)
        optimizer.step()
        setting.heap.tend()
    loss_sum, n_correct, n_utterances = ranks.sum_array(sums).tolist()
    return loss_sum / n_utterances, n_correct / n_utterances


def _add_gradients(
    network: torch.nn.Module,
    group: list[Batch],
    setting: _Setting,
    draws: RowDraws | None,
    epoch: int,
    progress: float,
) -> np.ndarray:
    """Add this rank's part of a step's gradient; sum of losses, utterances right, and all."""
    options, weights, ranks = setting.options, setting.weights, setting.ranks
    sums = np.zeros(3)
    # The mean is over the whole step, so that its gradient is that of one large batch.
    targets = torch.cat([batch.targets for batch in group]).to(weights.device)
    total = ranks.sum(weight_of(targets, weights).sum())
    if isinstance(network, Adversarial):
        n_step = float(ranks.sum_array(np.array([len(targets)], np.float64))[0])
    for batch in group:
        if not len(batch.rows) and not has_shared_statistics(network):
            continue
        targets = batch.targets.to(weights.device)
        with nullcontext() if draws is None else draws.of(batch, weights.device):
            logits = compute_logits(network, batch.inputs, options.precision)
        loss = weighted_loss(logits, targets, weights, options.label_smoothing) / total
        if isinstance(network, Adversarial):
            loss = loss + network.adversary_loss(batch.rows, progress) / n_step
        if not torch.isfinite(loss):
            raise RunError(
                f"The loss is {loss.item()} in epoch {epoch}. Lower the learning rate: "
                f"--set train.learning_rate={options.learning_rate / 10:g}"
            )
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        with torch.no_grad():
            losses = float(cross_entropy(logits, targets).sum())
            n_correct = int((logits.argmax(1) == targets.argmax(1)).sum())
        sums += (losses, n_correct, len(logits))
    return sums


def _n_steps(source: TrainingSource, options: TrainOptions, epoch: int) -> int:
    return -(-source.n_batches(epoch) // options.accumulate)


def _log_start(
    network: torch.nn.Module, source: TrainingSource, options: TrainOptions, device: torch.device
) -> None:
    n_trained = sum(parameter.numel() for parameter in trained_parameters(network))
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    logger.info(
        "training on %s in %s: %d parameters learn, %d are frozen; %d steps in the first epoch",
        torch.cuda.get_device_name(device) if device.type == "cuda" else device,
        "bf16" if is_bf16(options.precision, device) else "float32",
        n_trained,
        n_parameters - n_trained,
        _n_steps(source, options, 1),
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    # Rank 0 draws what a process that is alone does.
    sequence = np.random.SeedSequence([seed, epoch], spawn_key=(rank,) if rank else ())
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
