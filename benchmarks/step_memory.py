"""What a training step takes of a GPU, counted operation by operation without one.

The step runs on torch's tensors without data: every operation is dispatched, with its dtypes and
sizes, and computes nothing. What is alive of their storages is summed up. Operations are those of
a GPU where they differ in what they keep; attention without dropout keeps no matrix on either.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from koser.models.speech import FineTunedEncoder
from koser.training.losses import weighted_loss
from koser.training.optimization import make_optimizer, trained_parameters
from koser.training.options import TrainOptions


class _Counter(TorchDispatchMode):
    """Bytes of all storages that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive: set[int] = set()

    def count(self, tensor: object) -> None:
        """Count a tensor's storage until it is freed."""
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        if storage._cdata in self._alive:
            return
        self._alive.add(storage._cdata)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())

    def _drop(self, key: int, n_bytes: int) -> None:
        self._alive.discard(key)
        self.now -= n_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            self.count(leaf)
        return result


def count_step(
    network: FineTunedEncoder, options: TrainOptions, window_seconds: float, *, bf16: bool
) -> int:
    """Bytes at the peak of a training's second step, when the optimiser has its moments.

    Parameters
    ----------
    network : FineTunedEncoder
        Its weights play no part and are lost.
    options : TrainOptions
        `batch_seconds` and `accumulate` count.
    window_seconds : float
        Length of every window.
    bf16 : bool
        Whether products are in half precision.
    """
    network.train()
    encoder = network.encoder.train()
    n_windows = int(options.batch_seconds / window_seconds)
    n_samples = round(window_seconds * 16_000)
    n_frames = int(encoder.count_frames(torch.tensor([n_samples]))[0])
    with FakeTensorMode(allow_non_fake_inputs=True), _kept_as_on_a_gpu():
        _empty_weights(encoder)
        _empty_weights(network)
        optimizer = make_optimizer(network, options)
        trained = trained_parameters(network)
        with _Counter() as counter:
            modules = (network, encoder) if network.from_waveforms else (network,)
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    counter.count(tensor)
            for _ in range(2):
                optimizer.zero_grad()
                for _ in range(min(options.accumulate, 2)):  # a third adds to the same gradients
                    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                        if network.from_waveforms:
                            sound = torch.empty(n_windows, n_samples)
                        else:
                            sound = torch.empty(n_windows, encoder.width, n_frames)
                        logits = _logits(network, sound).float()
                    targets = torch.empty_like(logits)
                    loss = weighted_loss(logits, targets, torch.ones(logits.shape[1]), 0.0)
                    loss.backward()
                    del sound, logits, targets, loss
                nn.utils.clip_grad_norm_(trained, options.clip_norm)
                optimizer.step()
        return counter.most


def _logits(network: FineTunedEncoder, sound: torch.Tensor) -> torch.Tensor:
    """As `FineTunedEncoder.forward` of windows of one length, each an utterance of its own.

    That method looks at the lengths, which have no values here.
    """
    encoder = network.encoder
    if not network.from_waveforms:
        hidden = sound.transpose(1, 2)
    else:
        with torch.set_grad_enabled(network.is_whole):
            hidden = encoder.embed_windows(sound, None)
            if network.first:
                hidden = encoder.run(hidden, None, last=network.first)[-1]
    states = [hidden, *encoder.run(hidden, None, network.first)]
    frames = [states[index].float() for index in network.states]
    n_frames = torch.full((len(sound),), hidden.shape[1])
    pooled = torch.stack([network.pooling(each, n_frames) for each in frames], 1)
    logits: torch.Tensor = network.classifier(pooled)
    return logits


def _empty_weights(module: nn.Module) -> None:
    """Put tensors without data in place of all weights."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                part._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


@contextmanager
def _kept_as_on_a_gpu() -> Iterator[None]:
    """Operations that keep something else on a GPU.

    Its dropout is one kernel, which keeps a mask of bytes; a CPU's keeps what it multiplies with.
    Its autocast computes norms in float32; a CPU's in what they are given.
    """

    def dropout(
        values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if not training or not p:
            return values
        result: torch.Tensor = torch.native_dropout(values, p, True)[0]
        return result

    def in_float32(norm: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def compute(values: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return norm(values.float(), *args, **kwargs)

        return compute

    norms = {name: in_float32(getattr(functional, name)) for name in ("layer_norm", "group_norm")}
    with patch.multiple(functional, dropout=dropout, **norms):
        yield
