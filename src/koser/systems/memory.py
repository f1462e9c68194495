"""What fine-tuning needs of a device's memory, computed before it starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from koser.errors import RunError
from koser.features.speech.convolutional import ConvolutionalEncoder, WavLmEncoder
from koser.features.speech.encoder import SpeechEncoder
from koser.models.speech import FineTunedEncoder
from koser.training.devices import is_bf16
from koser.training.options import TrainOptions
from koser.training.ranks import ALONE, Ranks

logger = logging.getLogger(__name__)

# Weight, gradient and Adam's two moments, float32.
_BYTES_PER_TRAINED = 16
# What a transformer layer keeps for its backward pass, per frame and unit of width, in half
# precision and with attention that does not keep its matrix (Korthikanti et al., "Reducing
# activation recomputation in large transformer models", MLSys 2023). float32 takes twice it.
_BYTES_PER_UNIT = 34
# The longest window by default, 20 s: what attention looks over.
WINDOW_SAMPLES = 320_000
# CUDA's own, and what allocation in blocks leaves unused.
_GPU_OVERHEAD = 700 * 2**20
_CPU_OVERHEAD = 800 * 2**20
# On a CPU attention with dropout keeps its matrices, and a layer about half as much again.
_CPU_FACTOR = 1.5
_FOR_EACH = " for each training that runs at once (one after another: --workers 1)"


@dataclass(frozen=True)
class Memory:
    """Bytes needed at the peak of a training step.

    Attributes
    ----------
    parameters : int
        Trained ones with gradients and moments, and frozen ones where they are needed.
    activations : int
        What the step keeps for its backward pass.
    overhead : int
        The libraries' own.
    """

    parameters: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.activations + self.overhead


def training_memory(
    network: FineTunedEncoder, batch_seconds: float, *, bf16: bool, gpu: bool
) -> Memory:
    """Compute what a training step needs.

    Parameters
    ----------
    network : FineTunedEncoder
        What is trained, and from where.
    batch_seconds : float
        Sound in a batch, padding included.
    bf16 : bool
        Whether products are in half precision.
    gpu : bool
        Whether it is a GPU's memory.
    """
    encoder = network.encoder
    n_trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    own = {id(p) for p in network.parameters()}
    parameters = n_trained * _BYTES_PER_TRAINED
    parameters += 4 * sum(p.numel() for p in network.parameters() if not p.requires_grad)
    if network.from_waveforms or not gpu:  # the trunk too: needed, or in the same memory
        parameters += 4 * sum(p.numel() for p in encoder.parameters() if id(p) not in own)
    n_samples = round(batch_seconds * 16_000)
    n_frames = int(encoder.count_frames(torch.tensor([n_samples]))[0])
    per_layer = n_frames * encoder.width * _BYTES_PER_UNIT * (1 if bf16 else 2)
    activations = round(
        per_layer * (encoder.n_layers - network.first) * (1.0 if gpu else _CPU_FACTOR)
    )
    if isinstance(encoder, WavLmEncoder):
        # Its attention keeps the matrices: weights, their dropout, and the positions' bias.
        n_pairs = n_frames * int(encoder.count_frames(torch.tensor([WINDOW_SAMPLES]))[0])
        activations += 12 * n_pairs * encoder.n_heads * (encoder.n_layers - network.first)
    if network.from_waveforms:
        activations += _front_end_bytes(encoder, n_samples, is_trained=network.is_whole)
    return Memory(parameters, activations, _GPU_OVERHEAD if gpu else _CPU_OVERHEAD)


def _front_end_bytes(encoder: SpeechEncoder, n_samples: int, *, is_trained: bool) -> int:
    """Outputs of the convolutions: all kept if trained, else the two largest at once."""
    if not isinstance(encoder, ConvolutionalEncoder):
        return 0  # Whisper's are as small as a transformer layer's input
    sizes: list[int] = []
    layers: Any = encoder.convolutions
    for layer, stride in zip(layers, encoder.strides, strict=True):
        n_samples //= stride
        sizes.append(n_samples * layer.conv.out_channels * 4)
    # Convolution, norm and activation each leave one.
    return 3 * sum(sizes) if is_trained else 2 * sizes[0] + sizes[1]


def check_memory(
    network: FineTunedEncoder,
    options: TrainOptions,
    batch_seconds: float,
    device: torch.device,
    ranks: Ranks = ALONE,
    *,
    share: int | None = None,
) -> None:
    """Refuse a training that the device's free memory cannot hold.

    Of several `ranks` each computes a share of the batch; those on one machine share its
    memory, where that is what they compute in. So do trainings that run at once, whose
    `share` was found before the first of them began; None for a training that has all.

    Raises
    ------
    RunError
        With what is needed, what is free, and what to lower.
    """
    gpu = device.type == "cuda"
    needed = training_memory(
        network,
        batch_seconds / ranks.n_ranks,
        bf16=is_bf16(options.precision, device),
        gpu=gpu,
    )
    free: int | None
    if gpu:
        free, share = torch.cuda.mem_get_info(device)[0], None
    else:
        free = free_memory() if share is None else share
        free = None if free is None else free // ranks.n_local
    logger.info("a training step needs about %.1f GB", needed.total / 1e9)
    if free is None or needed.total <= free:
        return
    raise RunError(
        f"Training needs about {needed.total / 1e9:.1f} GB of {'GPU ' if gpu else ''}memory "
        f"({needed.parameters / 1e9:.1f} for parameters, {needed.activations / 1e9:.1f} for "
        f"{batch_seconds / ranks.n_ranks:g} s of sound a batch), and {free / 1e9:.1f} GB are "
        f"free{'' if share is None else _FOR_EACH}. Halve the batch, for nearly the same result: "
        f"--set train.batch_seconds={batch_seconds / 2:g} --set "
        f"train.accumulate={2 * options.accumulate}{_fewer_layers(network)}"
    )


def _fewer_layers(network: FineTunedEncoder) -> str:
    """Advice to train fewer layers than now; empty where there are none to leave out."""
    n_trained = network.encoder.n_layers - network.first
    most = n_trained if network.is_whole else n_trained - 1
    # With fewer the head would take no state that training reaches.
    fewest = n_trained - max(network.states) + 1
    n_layers = max(min(2, most), fewest)
    return f"; or train fewer layers: --set tune.layers={n_layers}" if n_layers <= most else ""


def free_memory() -> int | None:
    """Bytes that the system can still give; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    available = values.get("MemAvailable", "").split()
    return int(available[0]) * 1024 if available else None
