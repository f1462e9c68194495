"""One training in several processes ("ranks"): who is there, and what they tell each other.

Every process runs the same command, as `torchrun` starts it. Rank 0 does all that is done
once: it extracts, writes and prints. In a step each rank computes the gradient of its share
of the batch; gradients are summed, so that every rank takes the step that one process would
have taken on the whole batch. The sum is our own and not `DistributedDataParallel`'s: that
takes the mean over processes, which is the mean over utterances only where shares weigh the
same, renames parameters, and hides a step's accumulation in a context of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch

from koser.errors import RunError

# Sums of gradients on GPUs are a step apart at most, but NCCL does not notice closed connections.
_GPU_PATIENCE = timedelta(minutes=30)
_LONGEST_PAUSE = 0.2  # seconds between two looks at whether rank 0 is ready
# Values summed at once: a larger buffer gains nothing and costs memory.
_BUCKET = 16 * 2**20


class LostRankError(RunError):
    """A process of a training is gone; what was kept can be resumed."""


class Ranks:
    """The processes of one training, as one of them sees them.

    Parameters
    ----------
    rank : int
        This process's number; 0 extracts, writes and prints.
    n_ranks : int
        How many there are.
    n_local : int
        How many of them are on this machine.
    n_gpus : int
        GPUs of this machine.
    notes : torch.distributed.Store, optional
        Where small notes to each other are left; a process that is alone has none.
    """

    def __init__(
        self,
        rank: int = 0,
        n_ranks: int = 1,
        n_local: int = 1,
        *,
        n_gpus: int = 0,
        notes: Any = None,  # torch does not export the type of its stores
    ) -> None:
        self.rank = rank
        self.n_ranks = n_ranks
        self.n_local = n_local
        self._n_gpus = n_gpus
        self._notes = notes
        self._n_awaited = 0  # the same on every rank, as all make the same calls
        self._gpu_group: Any = None  # torch does not export its type

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.n_ranks == 1

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum of all ranks' tensors of one shape, in place; the same bits on every rank."""
        if not self.is_alone:
            with explained():
                group = self._gpu_group if tensor.is_cuda else None
                torch.distributed.all_reduce(tensor, group=group)
        return tensor

    def sum_array(self, array: np.ndarray) -> np.ndarray:
        """As `sum`, of an array on the CPU; the given one is left as it is."""
        summed: np.ndarray = self.sum(torch.from_numpy(array.copy())).numpy()
        return summed

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        own = np.zeros(self.n_ranks, np.int64)
        own[self.rank] = number
        return int(self.sum_array(own).max())

    def sum_with_gradient(self, tensor: torch.Tensor) -> torch.Tensor:
        """As `sum`, and differentiable: for statistics of a whole batch within a network."""
        if self.is_alone:
            return tensor
        result: torch.Tensor = _Sum.apply(tensor, self)  # type: ignore[no-untyped-call]  # torch's
        return result

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Let every rank have the gradient of all shares of a batch.

        A parameter that no rank has a gradient of keeps none: an optimizer would otherwise
        decay what a process that is alone leaves untouched.
        """
        if self.is_alone:
            return
        device = parameters[0].device
        known = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
        n_known = self.sum(known).tolist()
        for bucket in _buckets([p for p, n in zip(parameters, n_known, strict=True) if n]):
            flat = torch.cat(
                [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket]
            )
            summed = self.sum(flat).split_with_sizes([p.numel() for p in bucket])
            for parameter, gradient in zip(bucket, summed, strict=True):
                parameter.grad = gradient.view_as(parameter)

    # Any: values that JSON has
    def from_first(self, make: Callable[[], Any] = lambda: None) -> Any:
        """What `make` returns on rank 0, on every rank; the others wait, however long it takes.

        Parameters
        ----------
        make : Callable
            Called on rank 0 alone, so that others need not give it; returns values that JSON
            has.

        Raises
        ------
        LostRankError
            If rank 0 is gone.
        """
        if self.is_alone:
            return make()
        content = json.dumps(make()).encode() if self.is_first else b""
        return json.loads(self.bytes_from_first(content))

    def bytes_from_first(self, content: bytes) -> bytes:
        """Rank 0's `content` on every rank; the others wait for it, and theirs is ignored."""
        if self.is_alone:
            return content
        self._await_first()
        with explained():
            size = torch.tensor([len(content)])
            torch.distributed.broadcast(size, 0)
            buffer = torch.zeros(int(size), dtype=torch.uint8)
            if self.is_first:
                buffer.numpy()[:] = np.frombuffer(content, np.uint8)
            torch.distributed.broadcast(buffer, 0)
        return content if self.is_first else buffer.numpy().tobytes()

    def array_from_first(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array that `make` returns on rank 0, on every rank; the others wait."""
        if self.is_alone:
            return make()
        array = make() if self.is_first else np.zeros(0)
        dtype, shape = self.from_first(lambda: [array.dtype.str, list(array.shape)])
        content = self.bytes_from_first(array.tobytes() if self.is_first else b"")
        return array if self.is_first else np.frombuffer(content, dtype).reshape(shape)

    def gather_to_first(
        self, found: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield on rank 0 what all ranks have `found`; on the others nothing.

        Parameters
        ----------
        found : Iterable
            Rows [shape=(n,), dtype=int64, n > 0] and values [shape=(n, a, b), dtype=float32].
        """
        if self.is_first:
            others = set(range(1, self.n_ranks))
            for own in found:
                yield own
                yield from _receive(others)
            while others:
                yield from _receive(others)
            return
        for rows, values in found:
            _send(rows, values)
        _send(np.zeros(0, np.int64), np.zeros((0, 0, 0), np.float32))

    def tensors_from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Let all ranks' `tensors`, alike in shape and type, have rank 0's values, in place."""
        if self.is_alone:
            return
        self._await_first()
        for tensor in tensors:
            values = tensor.detach().cpu().contiguous()
            with explained():
                torch.distributed.broadcast(values, 0)
            with torch.no_grad():
                tensor.copy_(values)

    def check_agreement(self, tensors: Iterable[torch.Tensor], what: str) -> None:
        """Refuse to go on with ranks whose tensors are not the same, bit for bit.

        Raises
        ------
        RunError
            If one rank's differ from another's.
        """
        if self.is_alone:
            return
        own = np.zeros(self.n_ranks, np.int64)
        own[self.rank] = sum(_bits(tensor) for tensor in tensors) % 2**62
        sums = self.sum_array(own).tolist()
        other = next((rank for rank, value in enumerate(sums) if value != sums[0]), None)
        if other is not None:
            raise RunError(
                f"{what} of rank {other} is no longer that of rank 0: the processes compute "
                f"differently, because of other hardware or another version of torch. "
                f"Start all of them in the same environment, or train in one process."
            )

    def use(self, device: torch.device) -> torch.device:
        """The device that this rank computes on, where one process would on `device`.

        Raises
        ------
        RunError
            If there are more processes than GPUs on this machine.
        """
        if self.is_alone or device.type != "cuda":
            return device
        if self.n_local > self._n_gpus:
            raise RunError(
                f"torchrun has started {self.n_local} processes on a machine with {self._n_gpus} "
                f"GPUs; each needs one. Use --nproc-per-node {self._n_gpus}, or --set "
                f"train.device=cpu."
            )
        if self._gpu_group is None:
            with explained():
                self._gpu_group = torch.distributed.new_group(backend="nccl", timeout=_GPU_PATIENCE)
        return device

    def fails_first(self, error: Exception) -> bool:
        """Whether no other process has failed before this one."""
        if self._notes is None:
            return True
        if isinstance(error, LostRankError):
            time.sleep(0.1)  # who fails with a reason goes first
        with suppress(RuntimeError):  # who kept the notes is gone: then nobody knows better
            return int(self._notes.add("failures", 1)) == 1
        return True

    def _await_first(self) -> None:
        """Wait until rank 0 is here too, in short sleeps, so that a signal can end the wait."""
        if self._notes is None:
            return
        self._n_awaited += 1
        key, pause = f"first-is-at-{self._n_awaited}", 0.001
        with explained():
            if self.is_first:
                self._notes.set(key, "")
                return
            while not self._notes.check([key]):
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)


ALONE = Ranks()


@contextmanager
def explained() -> Iterator[None]:
    """Say in one line that a connection is gone; torch raises what its backend says."""
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(
            f"A process of this training has ended, and the others with it "
            f"({first_line(error)}). What was finished is kept: run the same command with "
            f"--resume; the number of processes may be another."
        ) from error


class _Sum(torch.autograd.Function):
    """The sum over ranks; every rank's loss depends on it, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks = ranks
        return ranks.sum(tensor.clone())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.ranks.sum(gradient.contiguous().clone()), None


def _send(rows: np.ndarray, values: np.ndarray) -> None:
    with explained():
        for array in (np.array(values.shape), rows, values):
            if array.size:
                torch.distributed.send(torch.from_numpy(np.ascontiguousarray(array)), 0)


def _receive(others: set[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What each of `others` sends next; who sends that it has no more is removed from them."""
    for rank in sorted(others):
        with explained():
            shape = torch.zeros(3, dtype=torch.int64)
            torch.distributed.recv(shape, rank)
            rows = torch.zeros(int(shape[0]), dtype=torch.int64)
            values = torch.zeros(shape.tolist())
            if not len(rows):
                others.remove(rank)
                continue
            torch.distributed.recv(rows, rank)
            torch.distributed.recv(values, rank)
        yield rows.numpy(), values.numpy()


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters in their order, together as long as they are small."""
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _bits(tensor: torch.Tensor) -> int:
    """The sum of a tensor's words: exact, and so the same in whatever order it is taken."""
    values = tensor.detach().contiguous().flatten()
    if values.element_size() == 4:
        values = values.view(torch.int32)
    elif values.element_size() == 2:
        values = values.view(torch.int16)
    return int(values.sum(dtype=torch.int64)) % 2**62


def first_line(error: Exception) -> str:
    """The first line of what an error says, for a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
