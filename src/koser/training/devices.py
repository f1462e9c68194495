"""Where a network computes, how precisely, and what happens when the memory ends there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from koser.errors import RunError
from koser.training.options import Precision, TrainOptions


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


def is_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether `device` computes in bf16 under `precision`.

    Raises
    ------
    RunError
        If bf16 is asked for and the GPU does not have it.
    """
    if precision == "float32" or (precision == "auto" and device.type != "cuda"):
        return False
    if device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False):
        return True
    if precision == "auto":
        return False
    raise RunError(
        f"'{torch.cuda.get_device_name(device)}' does not compute in bf16. "
        f"Use --set train.precision=float32."
    )


def compute_logits(
    network: torch.nn.Module, inputs: Sequence[torch.Tensor], precision: Precision
) -> torch.Tensor:
    """Logits of a batch, wherever the network is.

    Parameters
    ----------
    network : torch.nn.Module
        Maps `inputs` to logits.
    inputs : Sequence[torch.Tensor]
        Its arguments, on any device.
    precision : {'auto', 'float32', 'bf16'}
        Of the network.

    Returns
    -------
    torch.Tensor [shape=(batch, n_classes)]
        float32 whatever `precision` is, on the network's device.
    """
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16(precision, device)):
        logits: torch.Tensor = network(*[tensor.to(device) for tensor in inputs])
    return logits.float()


@contextmanager
def explained_memory_errors(options: TrainOptions, *, instead: str | None = None) -> Iterator[None]:
    """Turn a lack of memory within the block into one line that says what to try.

    Parameters
    ----------
    options : TrainOptions
        What is tried: its fields that begin with ``batch_`` say how large a batch is.
    instead : str, optional
        What to try where batches are not what can be changed.

    Raises
    ------
    RunError
        In place of `torch.OutOfMemoryError`, `MemoryError` and what torch raises where
        the CPU's memory ends.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_lack = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        # Torch has no class of its own for a CPU that runs out.
        if not is_lack and "DefaultCPUAllocator" not in str(error):
            raise
        place = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        instead = instead or options.if_memory_ends
        if instead is not None:
            raise RunError(f"The memory of {place} ended. {instead}") from error
        sizes = {
            name: value
            for name, value in options.model_dump().items()
            if name.startswith("batch_") and isinstance(value, (int, float))
        }
        tried = [f"train.{name}={value:g}" for name, value in sizes.items()]
        smaller = [
            f"--set train.{name}={max(value // 2, 1) if isinstance(value, int) else value / 2:g}"
            for name, value in sizes.items()
        ]
        advice = [*smaller, f"--set train.accumulate={2 * options.accumulate}"]
        raise RunError(
            f"The memory of {place} ended at {', '.join([*tried, ''])}"
            f"train.accumulate={options.accumulate}. "
            f"Smaller batches, more of them a step, learn nearly the same: {' '.join(advice)}"
        ) from error
