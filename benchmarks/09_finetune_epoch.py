"""A fine-tuning epoch from the stored trunk against the plain way (RANDOM weights: speed only).

The last 4 of wav2vec2-base's 12 layers, the same batches, all cores, three ways:

- transformers' model as it comes, the other layers' parameters frozen: the plain way.
  Its front-end asks for gradients in training, so they run back through all of it;
- ours, the whole encoder in every step: the trunk without gradients (what waveform
  augmentation needs);
- ours, from the stored trunk. Its losses are those of the second, step for step.

With --device cuda on a GPU.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from encoders import random_wav2vec2
from inputs import iter_clips
from koser.engines.local import available_cores
from koser.features.speech.extractors import TrunkExtractor
from koser.features.speech.loading import EncoderOptions, load_encoder
from koser.features.threads import torch_threads
from koser.models.heads import HeadOptions
from koser.models.speech import FineTunedEncoder, TuneOptions
from koser.systems.memory import training_memory
from koser.training.batches import pad_windows
from koser.training.devices import compute_logits
from koser.training.optimization import cross_entropy, make_optimizer, set_learning_rate
from koser.training.options import TrainOptions
from measuring import (
    in_fresh_process,
    memory_mb,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
)

TARGET = 4.0
BATCH = 8  # clips of 5 s
N_LABELS = 7
N_TUNED = 4
FIRST = 12 - N_TUNED
PLAIN = "transformers as it comes"
EVERY_STEP = "ours, trunk in every step"
STORED = "ours, stored trunk"


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_steps = 2 if arguments.quick else 5
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as name:
        folder = Path(name)
        encoder = str(random_wav2vec2(folder / "wav2vec2-base-random"))
        once = in_fresh_process(store_trunk, encoder, folder, n_steps, arguments.device)
        ways = (PLAIN, EVERY_STEP, STORED)
        results = {
            way: in_fresh_process(run_way, way, encoder, folder, arguments.device) for way in ways
        }
    print_table(
        [(f"median of {n_steps} steps of {BATCH} x 5 s", "s a step", "peak MB", "losses")]
        + [
            (
                way,
                f"{each.seconds:.2f}",
                f"{each.peak:.0f}",
                " ".join(f"{x:.5f}" for x in each.losses),
            )
            for way, each in results.items()
        ]
    )
    plain, every_step, stored = results.values()
    print(f"running the trunk once, for as much sound as a step has: {once:.2f} s")
    worst = max(abs(a - b) for a, b in zip(every_step.losses, stored.losses, strict=True))
    print_verdict(f"losses differ by {worst:.1e}", "<= 1e-4 (float32)", is_met=worst <= 1e-4)
    ratio = plain.seconds / stored.seconds
    print_verdict(f"{ratio:.1f} x the plain way", f">= {TARGET:g} x", is_met=ratio >= TARGET)
    print(f"{every_step.seconds / stored.seconds:.1f} x our own way with the trunk in every step")
    for way, each in list(results.items())[1:]:
        print(f"peak, {way}: {each.computed:.0f} MB computed, {each.peak:.0f} MB measured")


@dataclass(frozen=True)
class Result:
    """Median seconds of a step, memory in MB as measured and as computed, and the losses."""

    seconds: float
    peak: float
    computed: float
    losses: list[float]


def store_trunk(encoder: str, folder: Path, n_steps: int, device: str) -> float:
    """Keep the clips and the trunk's output of every step; median seconds of a step's."""
    extractor = TrunkExtractor(
        load_encoder(EncoderOptions(name=encoder)), FIRST, dtype="float32", device=device
    )
    clips = list(iter_clips(BATCH * n_steps))
    seconds = []
    with torch_threads(available_cores()):
        for step in range(n_steps):
            batch = clips[step * BATCH : (step + 1) * BATCH]
            started = time.perf_counter()
            arrays = extractor.extract(batch)
            seconds.append(time.perf_counter() - started)
            np.savez(folder / f"step{step}.npz", sound=np.stack(batch), trunk=np.stack(arrays))
    return float(np.median(seconds))


def run_way(way: str, encoder: str, folder: Path, device: str) -> Result:
    """Train on what `store_trunk` kept."""
    torch.manual_seed(0)
    options = TrainOptions(learning_rate=1e-3, precision="float32")
    network = PlainNetwork(encoder) if way == PLAIN else our_network(encoder, way)
    targets = torch.eye(N_LABELS)[torch.arange(BATCH) % N_LABELS].to(device)
    network.to(device).train()
    optimizer = make_optimizer(network, options)
    losses, seconds = [], []
    with torch_threads(available_cores()):
        for file in sorted(folder.glob("step*.npz")):
            with np.load(file) as kept:
                arrays = list(kept["trunk"]) if way == STORED else [x[None] for x in kept["sound"]]
            inputs = pad_windows(arrays)
            torch.manual_seed(1)  # the same dropout in both of ours
            started = time.perf_counter()
            set_learning_rate(optimizer, options.learning_rate)
            logits = compute_logits(network, inputs, options.precision)
            loss = cross_entropy(logits, targets).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            seconds.append(time.perf_counter() - started)
    on_gpu = device == "cuda"
    computed = 0.0
    if isinstance(network, FineTunedEncoder):
        memory = training_memory(network, 5.0 * BATCH, bf16=False, gpu=on_gpu)
        computed = memory.total / 1e6
    peak = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else memory_mb("VmHWM")
    return Result(float(np.median(seconds)), peak, computed, losses)


def our_network(encoder: str, way: str) -> FineTunedEncoder:
    loaded = load_encoder(EncoderOptions(name=encoder))
    tune = TuneOptions(layers=N_TUNED)
    from_waveforms = way == EVERY_STEP
    head = HeadOptions(hidden=256)
    return FineTunedEncoder(loaded.encoder, N_LABELS, head, tune, from_waveforms=from_waveforms)


class PlainNetwork(torch.nn.Module):
    """transformers' model, a mean over time and a linear layer, as in many a tutorial."""

    def __init__(self, encoder: str) -> None:
        from transformers import Wav2Vec2Model

        super().__init__()
        self.model = Wav2Vec2Model.from_pretrained(encoder)
        self.model.requires_grad_(False)
        self.model.encoder.layers[-N_TUNED:].requires_grad_(True)
        self.classifier = torch.nn.Linear(self.model.config.hidden_size, N_LABELS)

    def forward(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor, owners: torch.Tensor
    ) -> torch.Tensor:
        """Logits; all clips are equally long, so there is no padding to mind."""
        return self.classifier(self.model(waveforms).last_hidden_state.mean(1))


if __name__ == "__main__":
    main()
