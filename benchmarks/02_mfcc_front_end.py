"""MFCC front-end on one core: koser against librosa, the same numbers.

64 clips of 5 s of speech at 16 kHz, in memory. Both get the same parameters, those of
`koser.features.mfcc.MfccOptions`. koser works once clip by clip, as it fills the feature
store, and once in batches of 16.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from inputs import iter_clips, librosa_mfcc
from koser.features.mfcc import Mfcc, MfccExtractor, MfccOptions
from measuring import new_parser, print_heading, print_table, print_verdict, time_in_turns

TARGET_RATIO = 12.0
TARGET_DIFFERENCE = 1e-3  # of values of up to several hundred
SECONDS = 5.0
BATCH_SIZE = 16


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    clips = list(iter_clips(16 if arguments.quick else 64, seconds=SECONDS))
    options = MfccOptions()
    works = {
        "plain: librosa": partial(with_librosa, clips, options),
        "ours, clip by clip": partial(clip_by_clip, clips, MfccExtractor(options)),
        f"ours, batches of {BATCH_SIZE}": partial(in_batches, clips, Mfcc(options)),
    }
    torch.set_num_threads(1)
    with threadpool_limits(1):
        # The first round is not timed: librosa compiles and imports when first called.
        features = {name: work() for name, work in works.items()}
        timings = time_in_turns(works, n_rounds=3 if arguments.quick else 7)
    (plain, plain_timing), *ours = timings.items()
    rows = [("", "x real time", "cores", "ratio", "largest difference")]
    for name, timing in timings.items():
        difference = largest_difference(features[plain], features[name])
        rows.append(
            (
                name,
                f"{len(clips) * SECONDS / timing.seconds:,.0f}",
                f"{timing.cores:.2f}",
                f"{plain_timing.seconds / timing.seconds:.1f}",
                f"{difference:.1e}",
            )
        )
    print_table(rows)
    for name, timing in ours:
        ratio = plain_timing.seconds / timing.seconds
        difference = largest_difference(features[plain], features[name])
        print_verdict(
            f"{name}: {ratio:.1f} times librosa",
            f">= {TARGET_RATIO:g}",
            is_met=ratio >= TARGET_RATIO,
        )
        print_verdict(
            f"{name}: largest difference {difference:.1e}",
            f"<= {TARGET_DIFFERENCE:g}",
            is_met=difference <= TARGET_DIFFERENCE,
        )


def with_librosa(clips: list[np.ndarray], options: MfccOptions) -> list[np.ndarray]:
    return [librosa_mfcc(clip, options) for clip in clips]


def clip_by_clip(clips: list[np.ndarray], extractor: MfccExtractor) -> list[np.ndarray]:
    return [extractor(clip) for clip in clips]


def in_batches(clips: list[np.ndarray], front_end: Mfcc) -> list[np.ndarray]:
    features = []
    with torch.inference_mode():
        for start in range(0, len(clips), BATCH_SIZE):
            batch = torch.from_numpy(np.stack(clips[start : start + BATCH_SIZE]))
            n_samples = torch.full((len(batch),), batch.shape[1])
            features += list(front_end(batch, n_samples)[0].numpy())
    return features


def largest_difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))


if __name__ == "__main__":
    main()
