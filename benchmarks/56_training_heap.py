"""Memory of a fine-tuning on a CPU as its batches go by, tended and as it comes.

The last 4 of wav2vec2-base's 12 layers (RANDOM weights) in bf16, from random trunk states; every
batch holds about 20 s and has a length of its own, as batches of a real corpus have. As it comes:
glibc keeps what is freed, lengths are not rounded up, and oneDNN keeps what it compiled for 1,024
shapes. Each way in a new process.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from encoders import random_wav2vec2
from koser.features.residence import Heap
from koser.features.speech import encoder as speech_encoder
from koser.features.speech.loading import EncoderOptions, load_encoder
from koser.features.threads import torch_threads
from koser.models.heads import HeadOptions
from koser.models.speech import FineTunedEncoder, TuneOptions
from koser.training.devices import compute_logits
from koser.training.losses import cross_entropy
from koser.training.optimization import make_optimizer
from koser.training.options import TrainOptions
from measuring import (
    in_fresh_process,
    memory_mb,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
)

N_STEPS, EVERY = 120, 40
N_FRAMES, N_LABELS = 1_000, 7  # frames of a batch: 20 s
AS_IT_COMES, TENDED = "as it comes", "tended"
TARGET = 0.6


@dataclass(frozen=True)
class Result:
    """Memory in MB: before the first step, after every so many, its peak; and seconds a step."""

    before: float
    after: list[float]
    peak: float
    seconds: float


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_steps, every = (4, 2) if arguments.quick else (N_STEPS, EVERY)
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as name:
        encoder = str(random_wav2vec2(Path(name) / "wav2vec2-base-random"))
        results = {
            way: in_fresh_process(run, way, encoder, n_steps, every)
            for way in (AS_IT_COMES, TENDED)
        }
    steps = [f"after {step} steps, MB" for step in range(every, n_steps + 1, every)]
    print_table(
        [("", "before, MB", *steps, "peak, MB", "s a step")]
        + [
            (
                way,
                *(f"{mb:.0f}" for mb in (each.before, *each.after, each.peak)),
                f"{each.seconds:.2f}",
            )
            for way, each in results.items()
        ]
    )
    plain, tended = (each.peak - each.before for each in results.values())
    print_verdict(
        f"at most {tended:.0f} MB for the steps, {tended / plain:.2f} of {plain:.0f} MB",
        f"<= {TARGET:g}",
        is_met=tended <= TARGET * plain,
    )


def run(way: str, encoder: str, n_steps: int, every: int) -> Result:
    """Train on random states, and look at the memory."""
    if way == AS_IT_COMES:
        os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "1024"  # read at the first computation
        speech_encoder._FRAMES_TOGETHER = 1
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = FineTunedEncoder(
        load_encoder(EncoderOptions(name=encoder)).encoder,
        N_LABELS,
        HeadOptions(hidden=256),
        TuneOptions(layers=4),
        from_waveforms=False,
    ).train()
    optimizer, heap = make_optimizer(network, TrainOptions()), Heap()
    before, after = memory_mb("VmRSS"), []
    started = time.perf_counter()
    with torch_threads(1):
        for step in range(1, n_steps + 1):
            length = int(rng.integers(50, 400))
            n_clips = N_FRAMES // length
            states = torch.randn(n_clips, network.encoder.width, length)
            lengths = torch.from_numpy(rng.integers(length // 2, length + 1, n_clips))
            lengths[0] = length
            inputs = (states, lengths, torch.arange(n_clips))
            logits = compute_logits(network, inputs, "bf16")
            targets = torch.eye(N_LABELS)[torch.arange(n_clips) % N_LABELS]
            optimizer.zero_grad()
            cross_entropy(logits, targets).mean().backward()
            optimizer.step()
            if way == TENDED:
                heap.tend()
            if step % every == 0:
                after.append(memory_mb("VmRSS"))
    return Result(before, after, memory_mb("VmHWM"), (time.perf_counter() - started) / n_steps)


if __name__ == "__main__":
    main()
