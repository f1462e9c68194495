"""Frozen extraction with wav2vec2-base (RANDOM weights: speed only), and its memory.

The same clips three ways, in turns, on all cores: one by one; in shuffled batches padded
to their longest, as most toolkits do; and ours, bucketed by length and sized in seconds.
With --device cuda also what a GPU makes of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from encoders import random_wav2vec2
from inputs import clips_of_many_lengths
from koser.engines.local import available_cores
from koser.features.batching import batches_by_length
from koser.features.speech.extractors import StatisticsExtractor
from koser.features.speech.loading import EncoderOptions, load_encoder
from koser.features.threads import torch_threads
from measuring import (
    in_fresh_process,
    memory_mb,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
    time_in_turns,
)

BATCH_SIZE = 8  # of the plain way


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    on_gpu = arguments.device == "cuda"
    n_clips = 8 if arguments.quick else 400 if on_gpu else 32
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as folder:
        encoder = random_wav2vec2(Path(folder) / "wav2vec2-base-random")
        extractor = StatisticsExtractor(
            load_encoder(EncoderOptions(name=str(encoder))), device=arguments.device
        )
        clips = list(clips_of_many_lengths(n_clips))
        seconds = sum(map(len, clips)) / 16_000
        print(f"{n_clips} clips of 1.5 to 12 s, {seconds:.0f} s of sound, on {arguments.device}")
        works: dict[str, Callable[[], object]] = {
            "one by one": partial(one_by_one, extractor, clips),
            f"shuffled, padded, {BATCH_SIZE} at once": partial(padded, extractor, clips),
            "ours: bucketed, sized in seconds": partial(bucketed, extractor, clips),
        }
        with torch_threads(available_cores()):
            works["ours: bucketed, sized in seconds"]()  # memory and caches are warm for all
            timings = time_in_turns(works, n_rounds=1 if arguments.quick else 2)
        print_table(
            [("slower of 2 rounds", "seconds", "x real time")]
            + [
                (name, f"{t.seconds:.1f}", f"{seconds / t.seconds:.1f}")
                for name, t in timings.items()
            ]
        )
        single, plain, ours = (timing.seconds for timing in timings.values())
        print_verdict(
            f"{plain / ours:.2f} x shuffled, padded batches", ">= 1.5 x", is_met=plain / ours >= 1.5
        )
        wanted = 4.0 if on_gpu else 1.0
        print_verdict(
            f"{single / ours:.2f} x one by one", f">= {wanted:g} x", is_met=single / ours >= wanted
        )
        print_differences(extractor, clips)
        if not on_gpu:
            print("peak memory of a fresh process, everything loaded:")
            for name in ("one by one", "shuffled, padded", "ours"):
                peak = in_fresh_process(peak_memory, name, str(encoder), n_clips)
                print(f"  {name:<18} {peak:6.0f} MB")


def one_by_one(extractor: StatisticsExtractor, clips: Sequence[np.ndarray]) -> None:
    for clip in clips:
        extractor.extract([clip])


def padded(extractor: StatisticsExtractor, clips: Sequence[np.ndarray]) -> None:
    """Every batch as wide as its longest clip, whatever the others are."""
    longest = max(map(len, clips)) * BATCH_SIZE / 16_000
    for first in range(0, len(clips), BATCH_SIZE):
        run_at_once(extractor, clips[first : first + BATCH_SIZE], longest)


def run_at_once(
    extractor: StatisticsExtractor, clips: Sequence[np.ndarray], seconds: float
) -> list[np.ndarray]:
    kept = type(extractor).batch_seconds
    try:
        type(extractor).batch_seconds = seconds  # type: ignore[assignment,method-assign]
        return extractor.extract(clips)
    finally:
        type(extractor).batch_seconds = kept  # type: ignore[method-assign]


def bucketed(extractor: StatisticsExtractor, clips: Sequence[np.ndarray]) -> None:
    limit = round(extractor.batch_seconds * 16_000)
    for batch in batches_by_length([len(clip) for clip in clips], limit):
        extractor.extract([clips[place] for place in batch])


def print_differences(extractor: StatisticsExtractor, clips: Sequence[np.ndarray]) -> None:
    """How much padding changes a result: ours, and what transformers' own padding does."""
    chosen = sorted(clips, key=len)[:4] + sorted(clips, key=len)[-2:]
    together = run_at_once(extractor, chosen, 1e6)
    alone = [extractor.extract([clip])[0] for clip in chosen]
    worst = max(
        float(np.abs(a.astype(float) - b.astype(float)).max() / np.abs(b).max())
        for a, b in zip(together, alone, strict=True)
    )
    print_verdict(
        f"padding changes a value by {worst:.1e} of the largest",
        "<= 1e-3 in float16",
        is_met=worst <= 1e-3,
    )


def peak_memory(name: str, encoder: str, n_clips: int) -> float:
    extractor = StatisticsExtractor(load_encoder(EncoderOptions(name=encoder)))
    clips = list(clips_of_many_lengths(n_clips))
    with torch_threads(available_cores()), torch.inference_mode():
        {"one by one": one_by_one, "shuffled, padded": padded, "ours": bucketed}[name](
            extractor, clips
        )
    return memory_mb("VmHWM")


if __name__ == "__main__":
    main()
