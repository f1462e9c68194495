"""Joining the other processes of a training, which `torchrun` has started, and leaving them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch

from koser.errors import ConfigError, KoserError
from koser.training.ranks import ALONE, LostRankError, Ranks, first_line

# What torchrun tells every process.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Rank 0 may extract features for days. A process that dies is noticed by its closed
# connections, and torchrun ends the others: no clock is needed for that.
_PATIENCE = timedelta(days=365)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the other processes that `torchrun` has started; `ALONE` where there are none.

    An error of koser or of the machine within the block is raised by the first process that has
    it. The others end with status 1 and say nothing: one line tells a user more than eight.

    Raises
    ------
    ConfigError
        If the environment is only half that of `torchrun`.
    LostRankError
        If the others cannot be reached, or one of them is lost.
    """
    n_ranks = os.environ.get("WORLD_SIZE", "1")
    if n_ranks == "1":
        yield ALONE
        return
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={n_ranks} asks for several processes, but {', '.join(missing)} is not "
            f"set. Start them with: torchrun --nproc-per-node {n_ranks} -m koser train …"
        )
    ranks = _join()
    try:
        with _ended_by_signal():
            yield ranks
    except (KoserError, OSError) as error:  # OSError: what the machine refuses
        if not ranks.fails_first(error):
            raise SystemExit(1) from error
        raise
    torch.distributed.destroy_process_group()


def _join() -> Ranks:
    # torch does not export it to type checkers.
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, n_ranks = next(rendezvous("env://", timeout=timedelta(minutes=10)))
        # torchrun's store outlives a restart of the processes; what they noted must not.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        notes = PrefixStore(f"koser-{attempt}", store)
        torch.distributed.init_process_group(
            "gloo", store=notes, rank=rank, world_size=n_ranks, timeout=_PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise LostRankError(
            f"The other processes of this training cannot be reached at {place} "
            f"({first_line(error)}). Check torchrun's --master-addr and --master-port."
        ) from error
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", n_ranks))
    return Ranks(rank, n_ranks, n_local, n_gpus=_take_gpu(), notes=notes)


def _take_gpu() -> int:
    """Let this process see one GPU, its own; how many the machine has.

    Everything else can then go on as where there is one. It is done before CUDA is
    initialised, which is when it looks at the variable; counting does not initialise it.
    """
    n_gpus, place = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(n_gpus)))
    if place < n_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = names.split(",")[place]
    return n_gpus


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let SIGTERM, which torchrun sends to the others when one has died, clean up."""

    def end(number: int, frame: FrameType | None) -> None:
        raise LostRankError(
            f"This training was ended by {signal.Signals(number).name}, which torchrun sends when "
            f"another process has died. What was finished is kept: run the same command with "
            f"--resume; the number of processes may be another."
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
