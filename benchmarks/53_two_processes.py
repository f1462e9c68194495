"""Training in two processes against one (RANDOM weights and made-up sounds: speed and equality).

`mfcc` on stored MFCCs, and the last 4 of 12 layers of wav2vec2-base on a stored trunk:

- one process with one thread, the reference;
- one process with two threads, which is what two cores give without `torchrun`;
- two processes with one thread each, talking through gloo, as `torchrun --nproc-per-node 2`
  starts them.

Each trains the same utterances for the same epochs with `train.draws=row`, so that losses can
be compared step for step; what `row` costs against torch's own dropout is a row of its own.

Sums in another order differ in their last digits, and training makes such differences grow. So
the first step's gradient is held against a tolerance, and how far all steps have drifted apart
stands beside the drift that a second thread causes in a single process.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders import random_wav2vec2
from koser.config import resolve_config
from koser.features.speech.loading import EncoderOptions, load_encoder
from koser.features.store import FeatureStore
from koser.features.threads import torch_threads
from koser.models.cnn import MfccCnn
from koser.models.heads import HeadOptions
from koser.models.speech import FineTunedEncoder, TuneOptions
from koser.systems.mfcc import MfccConfig
from koser.systems.wav2vec2ft import Wav2Vec2FtConfig
from koser.training.batches import TrainingBatches
from koser.training.joining import joined_ranks
from koser.training.loop import fit
from koser.training.progress import Epoch
from koser.training.ranks import Ranks
from koser.training.tables import FeatureTable, WindowTable
from measuring import new_parser, print_heading, print_table, print_verdict

N_CLASSES = 7
FIRST = 8  # the state of wav2vec2-base at which training starts
FRAMES_A_SECOND = {"mfcc": 62.5, "wav2vec2ft": 50.0}
SHAPES: dict[str, tuple[int, ...]] = {"mfcc": (40,), "wav2vec2ft": (1, 768)}
# Name: processes, threads of each, where dropout comes from.
WAYS = {
    "one process, one thread": (1, 1, "row"),
    "one process, one thread, torch's dropout": (1, 1, "step"),
    "one process, two threads": (1, 2, "row"),
    "two processes, one thread each": (2, 1, "row"),
}
REFERENCE, OWN_DROPOUT, THREADS, PROCESSES = WAYS
TARGET = 1.6
STEPS = (1, 10, 30, 100)  # after which the drift is shown
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Result:
    """Seconds of all epochs but the first, and every epoch's loss and steps' gradient norms."""

    seconds: float
    losses: list[float]
    norms: list[float]


def main() -> None:
    parser = new_parser(__doc__)
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    sizes = {"mfcc": (64, 2), "wav2vec2ft": (8, 2)} if arguments.quick else {
        "mfcc": (1536, 4),
        "wav2vec2ft": (48, 3),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as name:
        folder = Path(name)
        encoder = str(random_wav2vec2(folder / "wav2vec2-base-random"))
        for model, (n_clips, n_epochs) in sizes.items():
            keep_features(folder, model, n_clips)
            results = {
                way: run_way(way, model, encoder, folder, (n_clips, n_epochs)) for way in WAYS
            }
            print_results(model, n_clips, results)


def print_results(model: str, n_clips: int, results: dict[str, Result]) -> None:
    """A table of the ways to train a model, and whether they come to the same."""
    reference, together = results[REFERENCE], results[PROCESSES]
    print(f"\n{model}: {n_clips} utterances of 2 to 8 s, {len(reference.norms)} steps")
    print_table(
        [("", "s an epoch", "speed", "losses of the epochs")]
        + [
            (
                way,
                f"{each.seconds:.2f}",
                f"{reference.seconds / each.seconds:.2f} x",
                " ".join(f"{loss:.6f}" for loss in each.losses),
            )
            for way, each in results.items()
        ]
    )
    speed = reference.seconds / together.seconds
    print_verdict(f"{speed:.2f} x the speed of one", f">= {TARGET:g} x", is_met=speed >= TARGET)
    first = drift(together, reference, n_steps=1)
    print_verdict(
        f"the first step's gradient differs by {first:.1e} of its norm",
        f"<= {TOLERANCE:g}",
        is_met=first <= TOLERANCE,
    )
    for way, each in ((PROCESSES, together), (THREADS, results[THREADS])):
        drifts = ", ".join(f"{n} {drift(each, reference, n_steps=n):.1e}" for n in STEPS)
        print(f"{way}: gradients' norms differ at most, by steps: {drifts}")


def drift(ours: Result, theirs: Result, *, n_steps: int) -> float:
    """Largest difference of a step's gradient norm, as a share of it, in the first steps."""
    pairs = list(zip(ours.norms, theirs.norms, strict=True))[:n_steps]
    return max(abs(a - b) / b for a, b in pairs)


def keep_features(folder: Path, model: str, n_clips: int) -> None:
    """Fill a store with noise of the shape that the model trains on."""
    rng = np.random.default_rng(0)
    with store_of(folder, model).writer() as writer:
        for row in range(n_clips):
            n_frames = round(float(rng.uniform(2.0, 8.0)) * FRAMES_A_SECOND[model])
            array = rng.normal(size=(*SHAPES[model], n_frames)) + (row % N_CLASSES) / 4
            writer.append(f"{row}".encode(), array.astype(np.float32))


def store_of(folder: Path, model: str) -> FeatureStore:
    """The store of a model's features."""
    return FeatureStore(folder / "store", {"extractor": model})


def run_way(way: str, model: str, encoder: str, folder: Path, size: tuple[int, int]) -> Result:
    """Train in as many processes as the way has; what the first of them measured."""
    n_ranks, n_threads, draws = WAYS[way]
    context = multiprocessing.get_context("spawn")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    answers = context.SimpleQueue()
    processes = []
    for rank in range(n_ranks):
        given = (model, encoder, folder, size, n_threads, draws)
        process = context.Process(target=serve, args=(rank, n_ranks, port, answers, given))
        process.start()
        processes.append(process)
    result: Result = answers.get()
    for process in processes:
        process.join()
    return result


def serve(rank: int, n_ranks: int, port: int, answers: Any, given: tuple[Any, ...]) -> None:
    """What a process does: join the others, train, and let the first one answer."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n_ranks),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    with joined_ranks() as ranks:
        result = train(ranks, *given)
        if ranks.is_first:
            answers.put(result)


def train(
    ranks: Ranks,
    model: str,
    encoder: str,
    folder: Path,
    size: tuple[int, int],
    n_threads: int,
    draws: str,
) -> Result:
    """Train a model of full size on what `keep_features` kept."""
    n_clips, n_epochs = size
    keys = np.array([[f"{row}".encode() for row in range(n_clips)]], "S16")
    targets = np.eye(N_CLASSES, dtype=np.float32)[np.arange(n_clips) % N_CLASSES]
    kind = MfccConfig if model == "mfcc" else Wav2Vec2FtConfig
    # A learning rate that stays: epochs should not differ in what they do.
    chosen = [f"train.epochs={n_epochs}", f"train.draws={draws}", "train.device=cpu"]
    config: Any = resolve_config(kind, overrides=chosen)
    torch.manual_seed(0)
    stores = (store_of(folder, model),)
    if model == "mfcc":
        crop = round(config.crop_seconds * FRAMES_A_SECOND[model])
        table: Any = FeatureTable(stores, keys, targets, crop)
        network: Any = MfccCnn(config.cnn, 40, N_CLASSES)
        bound = {"batch_size": config.train.batch_size}
    else:
        table = WindowTable(stores, keys, targets)
        loaded = load_encoder(EncoderOptions(name=encoder))
        network = FineTunedEncoder(
            loaded.encoder, N_CLASSES, HeadOptions(), TuneOptions(), from_waveforms=False
        )
        bound = {"batch_length": round(config.train.batch_seconds * FRAMES_A_SECOND[model])}
    source = TrainingBatches(table, np.arange(n_clips), **bound, seed=0, ranks=ranks)
    ends: list[float] = []

    def note(record: Epoch) -> None:
        ends.append(time.perf_counter())

    with (
        tempfile.TemporaryDirectory(prefix="koser-bench-") as own,
        torch_threads(n_threads),
        gradient_norms() as norms,
    ):
        file = Path(own) / "last.pth"
        done = fit(network, source, None, config.train, seed=0, resume_file=file, on_epoch=note)
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    return Result(seconds, [each.train_loss for each in done.history], norms)


@contextmanager
def gradient_norms() -> Iterator[list[float]]:
    """The norm of every step's gradient within the block, as it is before it is clipped."""
    norms: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters: Sequence[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
        norm = clip(parameters, max_norm)
        norms.append(float(norm))
        return norm

    torch.nn.utils.clip_grad_norm_ = spy
    try:
        yield norms
    finally:
        torch.nn.utils.clip_grad_norm_ = clip


if __name__ == "__main__":
    main()
