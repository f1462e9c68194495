"""A fine-tuning epoch from the stored trunk against the plain way (RANDOM weights: speed only).

The last 4 of wav2vec2-base's 12 layers, clips of very different lengths, all cores:

- transformers' model as it comes, the other layers' parameters frozen, in shuffled batches
  of 8 padded to their longest: the plain way. Its front-end asks for gradients in
  training, so they run back through all of it;
- ours, the whole encoder in every step (what waveform augmentation needs), in batches of
  similar lengths that hold as much sound;
- ours, from the stored trunk. Its losses are those of the second, step for step;
- the same in bf16, which some processors multiply faster.

With --device cuda on a GPU.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from encoders import random_wav2vec2
from inputs import clips_of_many_lengths
from koser.engines.local import available_cores
from koser.features.batching import batches_by_length
from koser.features.speech.extractors import TrunkExtractor
from koser.features.speech.loading import EncoderOptions, load_encoder
from koser.features.threads import torch_threads
from koser.models.heads import HeadOptions
from koser.models.speech import FineTunedEncoder, TuneOptions
from koser.systems.memory import training_memory
from koser.training.batches import pad_windows
from koser.training.devices import compute_logits
from koser.training.losses import cross_entropy
from koser.training.optimization import make_optimizer, set_learning_rate
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
BATCH_SIZE = 8  # clips, of the plain way
BATCH_SECONDS = 40.0  # of ours: 8 clips of the mean length
N_LABELS = 7
N_TUNED = 4
FIRST = 12 - N_TUNED
PLAIN = "transformers as it comes"
EVERY_STEP = "ours, trunk in every step"
STORED = "ours, stored trunk"
STORED_BF16 = "ours, stored trunk, bf16"


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_clips = 8 if arguments.quick else 32
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as name:
        folder = Path(name)
        encoder = str(random_wav2vec2(folder / "wav2vec2-base-random"))
        once, n_seconds = in_fresh_process(store_trunk, encoder, folder, n_clips, arguments.device)
        ways = (PLAIN, EVERY_STEP, STORED, STORED_BF16)
        results = {
            way: in_fresh_process(run_epoch, way, encoder, folder, arguments.device) for way in ways
        }
    print(f"one epoch of {n_clips} clips of 1.5 to 12 s, {n_seconds:.0f} s of sound")
    print_table(
        [("", "s an epoch", "ratio", "peak MB", "first losses")]
        + [
            (
                way,
                f"{each.seconds:.1f}",
                f"{results[PLAIN].seconds / each.seconds:.1f}",
                f"{each.peak:.0f}",
                " ".join(f"{loss:.5f}" for loss in each.losses[:3]),
            )
            for way, each in results.items()
        ]
    )
    plain, every_step, stored, _ = results.values()
    print(f"running the trunk, once for all epochs: {once:.1f} s")
    worst = max(abs(a - b) for a, b in zip(every_step.losses, stored.losses, strict=True))
    print_verdict(f"losses differ by {worst:.1e}", "<= 1e-4 (float32)", is_met=worst <= 1e-4)
    ratio = plain.seconds / stored.seconds
    print_verdict(f"{ratio:.1f} x the plain way", f">= {TARGET:g} x", is_met=ratio >= TARGET)
    for way, each in list(results.items())[1:3]:
        print(f"peak, {way}: {each.computed:.0f} MB computed, {each.peak:.0f} MB measured")


@dataclass(frozen=True)
class Result:
    """Seconds of an epoch, memory in MB as measured and as computed, and the steps' losses."""

    seconds: float
    peak: float
    computed: float
    losses: list[float]


def store_trunk(encoder: str, folder: Path, n_clips: int, device: str) -> tuple[float, float]:
    """Keep clips and the trunk's output of each; seconds that took, and seconds of sound."""
    extractor = TrunkExtractor(
        load_encoder(EncoderOptions(name=encoder)), FIRST, dtype="float32", device=device
    )
    clips = list(clips_of_many_lengths(n_clips))
    limit = round(extractor.batch_seconds * 16_000)
    started = time.perf_counter()
    with torch_threads(available_cores()):
        for batch in batches_by_length([len(clip) for clip in clips], limit):
            arrays = extractor.extract([clips[place] for place in batch])
            for place, array in zip(batch.tolist(), arrays, strict=True):
                np.savez(folder / f"clip{place:03}.npz", sound=clips[place][None], trunk=array)
    return time.perf_counter() - started, sum(map(len, clips)) / 16_000


def plan(lengths: Sequence[int], way: str) -> list[np.ndarray]:
    """Which clips are in each batch: shuffled, or of similar lengths in shuffled order."""
    rng = np.random.default_rng(0)
    if way == PLAIN:
        return list(np.array_split(rng.permutation(len(lengths)), len(lengths) // BATCH_SIZE))
    batches = batches_by_length(lengths, round(BATCH_SECONDS * 16_000))
    return [batches[place] for place in rng.permutation(len(batches))]


def run_epoch(way: str, encoder: str, folder: Path, device: str) -> Result:
    """Train for one epoch on what `store_trunk` kept."""
    torch.manual_seed(0)
    is_stored = way in (STORED, STORED_BF16)
    precision = "bf16" if way == STORED_BF16 else "float32"
    options = TrainOptions(learning_rate=1e-3, precision=precision)
    network = PlainNetwork(encoder) if way == PLAIN else our_network(encoder, is_stored=is_stored)
    network.to(device).train()
    optimizer = make_optimizer(network, options)
    kept = [np.load(file) for file in sorted(folder.glob("clip*.npz"))]
    batches = plan([clip["sound"].shape[1] for clip in kept], way)
    losses = []
    started = time.perf_counter()
    with torch_threads(available_cores()):
        for number, batch in enumerate(batches):
            inputs = pad_windows([kept[i]["trunk" if is_stored else "sound"] for i in batch])
            targets = torch.eye(N_LABELS)[torch.from_numpy(batch) % N_LABELS].to(device)
            torch.manual_seed(number)  # the same dropout in all of ours
            set_learning_rate(optimizer, options.learning_rate)
            logits = compute_logits(network, inputs, options.precision)
            loss = cross_entropy(logits, targets).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    seconds = time.perf_counter() - started
    on_gpu = device == "cuda"
    computed = 0.0
    if isinstance(network, FineTunedEncoder):
        memory = training_memory(network, BATCH_SECONDS, bf16=precision == "bf16", gpu=on_gpu)
        computed = memory.total / 1e6
    peak = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else memory_mb("VmHWM")
    return Result(seconds, peak, computed, losses)


def our_network(encoder: str, *, is_stored: bool) -> FineTunedEncoder:
    loaded = load_encoder(EncoderOptions(name=encoder))
    tune = TuneOptions(layers=N_TUNED)
    head = HeadOptions(hidden=256)
    return FineTunedEncoder(loaded.encoder, N_LABELS, head, tune, from_waveforms=not is_stored)


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
        """Logits; padding is heard as silence, as this model was pretrained to."""
        return self.classifier(self.model(waveforms).last_hidden_state.mean(1))


if __name__ == "__main__":
    main()
