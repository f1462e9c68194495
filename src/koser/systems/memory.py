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
from koser.features.speech.whisper import HOP_LENGTH
from koser.models.speech import FineTunedEncoder
from koser.training.devices import is_bf16
from koser.training.options import TrainOptions
from koser.training.ranks import ALONE, Ranks

logger = logging.getLogger(__name__)

# Weight, gradient and Adam's two moments, float32.
_BYTES_PER_TRAINED = 16
# Under autocast a weight is kept in half precision too while a batch is computed.
_BYTES_PER_HALF = 2
# What a step keeps for its backward pass per transformer layer, frame and unit of width, with
# attention that does not keep its matrix: what steps were counted to take, operation by operation
# (benchmarks/12_training_memory.py), for the architecture that takes most. In half precision it
# is more than half: the residual stream and the norms stay float32, and each product has a cast
# copy of its input. Korthikanti et al. ("Reducing activation recomputation in large transformer
# models", MLSys 2023) have 34 for a model whose stream is in half precision as well.
_BYTES_PER_UNIT = {"bf16": 55, "float32": 75}
# The same for all that lies around the layers: their input, and a state while it is pooled.
_BYTES_AROUND = 40
# What attention that keeps its matrix takes per pair of frames and head, counted likewise; and the
# bias of positions that all layers share, with its gradient.
_BYTES_PER_PAIR = {"bf16": 7, "float32": 12}
_BYTES_OF_BIAS = 8
# The longest window by default, 20 s: what attention looks over.
WINDOW_SAMPLES = 320_000
# CUDA's own, and what allocation in blocks leaves unused.
_GPU_OVERHEAD = 700 * 2**20
_CPU_OVERHEAD = 800 * 2**20
# On a CPU attention with dropout keeps its matrices, and dropout what it drops in full: measured,
# with the holes of the heap, by benchmarks/09_finetune_epoch.py.
_CPU_FACTOR = 2.5
_FOR_EACH = " for each training that runs at once (one after another: --workers 1)"


@dataclass(frozen=True)
class Memory:
    """Bytes needed at the peak of a training step.

    Attributes
    ----------
    parameters : int
        Trained ones with gradients and moments, frozen ones where they are needed, and copies
        of both in half precision.
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
    if bf16:
        parameters += _BYTES_PER_HALF * sum(p.numel() for p in network.parameters())
    n_samples = round(batch_seconds * 16_000)
    n_frames = int(encoder.count_frames(torch.tensor([n_samples]))[0])
    precision = "bf16" if bf16 else "float32"
    n_layers = encoder.n_layers - network.first
    per_unit = n_layers * _BYTES_PER_UNIT[precision] + _BYTES_AROUND
    activations = round(n_frames * encoder.width * per_unit * (1.0 if gpu else _CPU_FACTOR))
    if isinstance(encoder, WavLmEncoder):
        n_pairs = n_frames * int(encoder.count_frames(torch.tensor([WINDOW_SAMPLES]))[0])
        per_pair = n_layers * _BYTES_PER_PAIR[precision] + _BYTES_OF_BIAS
        activations += n_pairs * encoder.n_heads * per_pair
    if network.from_waveforms:
        activations += _front_end_bytes(encoder, n_samples, is_trained=network.is_whole)
    return Memory(parameters, activations, _GPU_OVERHEAD if gpu else _CPU_OVERHEAD)


def _front_end_bytes(encoder: SpeechEncoder, n_samples: int, *, is_trained: bool) -> int:
    """Outputs of the convolutions: all kept if trained, else the two largest at once."""
    if not isinstance(encoder, ConvolutionalEncoder):
        # Of Whisper's two the first has a frame every 10 ms: what it gives, and its activation.
        return 2 * 4 * encoder.width * (n_samples // HOP_LENGTH) if is_trained else 0
    sizes: list[int] = []
    layers: Any = encoder.convolutions
    for layer, stride in zip(layers, encoder.strides, strict=True):
        n_samples //= stride
        sizes.append(n_samples * layer.conv.out_channels * 4)
    # Convolution, norm and activation each leave one, and the largest has a gradient.
    return 3 * sum(sizes) + sizes[0] if is_trained else 2 * sizes[0] + sizes[1]


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
