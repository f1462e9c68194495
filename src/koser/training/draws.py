"""Dropout and SpecAugment that an utterance has of its own, whoever computes it.

torch draws masks from one stream, in the order in which values are computed: they depend on
what an utterance is batched with, on padding, and on how many processes share a batch. Here
a value's draw is a hash of its address: seed, epoch, row of the manifest, window of it,
number of the draw in the network, and place. Integer arithmetic gives the same bits on every
device.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from koser.errors import RunError
from koser.training.batches import Batch
from koser.training.options import TrainOptions
from koser.training.ranks import Ranks

logger = logging.getLogger(__name__)

# The finalizer of MurmurHash3 (Appleby, public domain): every bit of its input changes every
# bit of its output about half the time. As signed 32-bit integers, which torch can multiply.
_FIRST = 0x85EBCA6B - 2**32
_SECOND = 0xC2B2AE35 - 2**32
# Odd, from the golden ratio: neighbouring places are far apart before they are mixed.
_STRIDE = 0x9E3779B1 - 2**32


class RowDraws(TorchFunctionMode):
    """Within `of`, draws of a network's forward pass come from the utterances' addresses.

    Parameters
    ----------
    seed, epoch : int
        The first two parts of every address.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        super().__init__()
        self._start = (seed, epoch)
        self._keys: dict[int, torch.Tensor] = {}
        self._n_draws = 0
        self._known: dict[Any, Callable[..., Any]] = {
            functional.dropout: self._dropout,
            functional.dropout2d: self._dropout2d,
            functional.scaled_dot_product_attention: self._attention,
            torch.rand: self._rand,
            torch.randint: self._randint,
        }

    @contextmanager
    def of(self, batch: Batch, device: torch.device) -> Iterator[None]:
        """Let one forward pass over `batch`, on `device`, draw by address.

        Raises
        ------
        RunError
            If the network draws in a way that has no address here.
        """
        windows = [
            (row, window)
            for row, n in zip(batch.rows, batch.n_windows, strict=True)
            for window in range(n)
        ]
        rows = [(row, 0) for row in batch.rows]
        self._keys = {len(each): self._hash(each).to(device) for each in (windows, rows)}
        self._n_draws = 0
        before = _generator_state(device)
        with self:
            yield
        if not torch.equal(before, _generator_state(device)):
            raise RunError(
                "train.draws = row: this network has dropout that is drawn within one operation "
                "of torch (as in WavLM's attention), where an utterance has no address. "
                "Use --set train.draws=step."
            )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do what `func` does, by address where it draws."""
        return self._known.get(func, func)(*args, **(kwargs or {}))

    def _hash(self, addresses: Sequence[tuple[int, int]]) -> torch.Tensor:
        """A key for each row and window [shape=(n,), dtype=int32]."""
        words = np.array([(*self._start, *each) for each in addresses], np.int64).reshape(-1, 4)
        keys = torch.zeros(len(words), dtype=torch.int32)
        for column in (words & 0xFFFFFFFF, words >> 32):  # whatever is beyond 32 bits counts too
            for word in torch.from_numpy(column.astype(np.uint32).view(np.int32)).unbind(1):
                keys = _mix(keys * _STRIDE + word)
        return keys

    def _draw(self, shape: Sequence[int], device: torch.device) -> torch.Tensor:
        """Uniform 32-bit integers [shape=shape], the first dimension being that of the batch."""
        self._n_draws += 1
        keys = self._keys.get(shape[0])
        if keys is None:
            raise RunError(
                f"train.draws = row: a draw of shape {tuple(shape)} has no utterance in its first "
                f"dimension. Use --set train.draws=step."
            )
        values = _mix(keys + self._n_draws * 0x632BE5)
        for size in shape[1:]:
            # By place and not by what a tensor's strides are: padding must not move a draw.
            places = _mix(torch.arange(size, dtype=torch.int32, device=device) * _STRIDE)
            values = _mix(values[..., None] ^ places)
        return values

    def _dropout(
        self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if not training or p == 0.0 or not input.numel():
            return input
        return input * self._keep(input.shape, p, input)

    def _dropout2d(
        self, input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if not training or p == 0.0 or not input.numel():
            return input
        keep = self._keep(input.shape[:2], p, input)
        return input * keep.view(*keep.shape, *[1] * (input.dim() - 2))

    def _keep(self, shape: Sequence[int], p: float, like: torch.Tensor) -> torch.Tensor:
        """1 / (1 - p) with probability 1 - p, else 0."""
        keep = self._draw(shape, like.device) >= round(p * 2**32) - 2**31
        return keep.to(like.dtype) / (1.0 - p)

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        **others: Any,
    ) -> torch.Tensor:
        """What torch documents scaled_dot_product_attention to be, with its dropout by address."""
        plain = functional.scaled_dot_product_attention
        if dropout_p == 0.0 or others.get("is_causal") or others.get("enable_gqa"):
            return plain(query, key, value, attn_mask, dropout_p, **others)
        scale = others.get("scale") or 1.0 / math.sqrt(query.shape[-1])
        scores = query @ key.transpose(-2, -1) * scale
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights: torch.Tensor = self._dropout(scores.softmax(-1), dropout_p)
        return weights @ value

    def _uniform(self, shape: Sequence[int], device: torch.device | None) -> torch.Tensor:
        """Numbers in [0, 1), float32."""
        drawn = self._draw(shape, device or torch.device("cpu"))
        return ((drawn >> 8) & 0xFFFFFF).float() / 2**24

    def _rand(self, *size: int, device: torch.device | None = None) -> torch.Tensor:
        return self._uniform(size, device)

    def _randint(
        self, low: int, high: int, size: Sequence[int], *, device: torch.device | None = None
    ) -> torch.Tensor:
        return low + (self._uniform(size, device) * (high - low)).long()


@contextmanager
def own_draws_noted(ranks: Ranks, options: TrainOptions, device: torch.device) -> Iterator[None]:
    """Say so if ranks have drawn within the block what one process would have drawn otherwise."""
    before = _generator_state(device)
    yield
    is_own = not (ranks.is_alone or options.draws == "row")
    if is_own and not torch.equal(before, _generator_state(device)):
        logger.warning(
            "Each of %d processes draws its own dropout: what is learnt is as good as in one "
            "process, but not the same. --set train.draws=row makes it the same.",
            ranks.n_ranks,
        )


def _mix(values: torch.Tensor) -> torch.Tensor:
    """Mix the bits of 32-bit integers, into new ones."""
    # A signed shift repeats the sign; what it repeats is cut off.
    values = values ^ ((values >> 16) & 0xFFFF)
    values *= _FIRST
    values ^= (values >> 13) & 0x7FFFF
    values *= _SECOND
    values ^= (values >> 16) & 0xFFFF
    return values


def _generator_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
