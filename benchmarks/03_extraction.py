"""The whole way to features: 48 kHz WAV files to stored MFCCs, on two cores.

Ours is `extract` with two worker processes into an empty store: hash the file, decode,
resample to 16 kHz, MFCC, append to the store with fsync; starting the workers counts.
The plain way is a loop over `librosa.load` and `librosa.feature.mfcc` with the same
parameters, which stores nothing; it is timed on a part of the same files and compared
per clip. Files are in the page cache for both.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import soundfile

from inputs import iter_clips, librosa_mfcc
from koser.audio.reading import SAMPLING_RATE, Clip, load
from koser.audio.resampling import resample
from koser.engines.local import LocalEngine
from koser.features.arrivals import clip_key
from koser.features.extraction import extract
from koser.features.mfcc import MfccExtractor, MfccOptions
from koser.features.store import FeatureStore
from measuring import (
    Timing,
    cpu_seconds,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
    time_in_turns,
)

# librosa is imported where it is used: worker processes import this file, too.

TARGET_RATIO = 6.0
N_WORKERS = 2
FILE_RATE = 48_000  # Hz


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--clips", type=int, default=2000, help="files of 5 s for ours")
    parser.add_argument("--plain-clips", type=int, default=200, help="of these for librosa")
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_clips, n_plain = arguments.clips, arguments.plain_clips
    if arguments.quick:
        n_clips, n_plain = min(n_clips, 300), min(n_plain, 40)
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as folder:
        paths = write_wavs(Path(folder), n_clips)
        run = Ours([Clip(path) for path in paths], Path(folder) / "store")
        plain_way(paths[:5])  # librosa imports and compiles when first called
        timings = time_in_turns(
            {"plain": partial(plain_way, paths[:n_plain]), "ours": run},
            n_rounds=1 if arguments.quick else 3,
        )
        stages = time_stages(paths[:n_plain], Path(folder) / "stages")
    plain, ours = timings["plain"], timings["ours"]
    plain_ms, ours_ms = 1e3 * plain.seconds / n_plain, 1e3 * ours.seconds / n_clips
    ratio = plain_ms / ours_ms
    rows = [("", "clips", "seconds", "cores", "ms per clip")]
    for name, n, timing in (("plain: librosa", n_plain, plain), ("ours", n_clips, ours)):
        milliseconds = 1e3 * timing.seconds / n
        rows.append(
            (name, f"{n}", f"{timing.seconds:.2f}", f"{timing.cores:.2f}", f"{milliseconds:.2f}")
        )
    print_table(rows)
    started_ms = 1e3 * (ours.seconds - run.seconds_to_first) / n_clips
    print(
        f"ratio {ratio:.1f}; {plain_ms / started_ms:.1f} once the workers have started, "
        f"for which {run.seconds_to_first:.1f} s were needed"
    )
    print_where_time_goes(stages, ours, n_clips)
    print_verdict(
        f"{ratio:.1f} times the plain way on {N_WORKERS} cores",
        f">= {TARGET_RATIO:g}",
        is_met=ratio >= TARGET_RATIO,
    )


def write_wavs(folder: Path, n_clips: int) -> list[str]:
    paths = [str(folder / f"{number:05d}.wav") for number in range(n_clips)]
    for path, clip in zip(paths, iter_clips(n_clips, sampling_rate=FILE_RATE), strict=True):
        soundfile.write(path, clip, FILE_RATE, subtype="PCM_16")
    return paths


class Ours:
    """Extract `clips` into an empty store; remembers when the first clip was done."""

    def __init__(self, clips: list[Clip], store_root: Path) -> None:
        self._clips = clips
        self._store_root = store_root
        self.seconds_to_first = 0.0

    def __call__(self) -> None:
        """Extract everything."""
        shutil.rmtree(self._store_root, ignore_errors=True)
        started = time.perf_counter()

        def on_clip(done: int, _: int) -> None:
            if done == 1:
                self.seconds_to_first = time.perf_counter() - started

        extractor = MfccExtractor(MfccOptions())
        extract(
            self._clips,
            extractor,
            self._store_root,
            engine=LocalEngine(N_WORKERS),
            progress=on_clip,
        )


def plain_way(paths: list[str]) -> None:
    import librosa

    options = MfccOptions()
    for path in paths:
        librosa_mfcc(librosa.load(path, sr=options.sampling_rate)[0], options)


def time_stages(paths: list[str], store_root: Path) -> dict[str, float]:
    """CPU milliseconds per clip of each stage alone, in this process on one thread."""
    import torch

    torch.set_num_threads(1)
    extractor = MfccExtractor(MfccOptions())
    studio = [soundfile.read(path, dtype="float32")[0] for path in paths]
    waveforms = [load(path) for path in paths]
    features = [extractor(waveform) for waveform in waveforms]
    store = FeatureStore(store_root, extractor.describe())

    def store_all() -> None:
        with store.writer() as writer:
            for path, array in zip(paths, features, strict=True):
                writer.append(hashlib.md5(path.encode()).digest(), array)

    def per_clip(work: Callable[[], object]) -> float:
        started = cpu_seconds()
        work()
        return 1e3 * (cpu_seconds() - started) / len(paths)

    loading = per_clip(lambda: [load(path) for path in paths])
    resampling = per_clip(lambda: [resample(each, FILE_RATE, SAMPLING_RATE) for each in studio])
    return {
        "hash the file": per_clip(lambda: [clip_key(Clip(path)) for path in paths]),
        "decode": loading - resampling,
        "resample": resampling,
        "MFCC": per_clip(lambda: [extractor(waveform) for waveform in waveforms]),
        "append to the store": per_clip(store_all),
    }


def print_where_time_goes(stages: dict[str, float], ours: Timing, n_clips: int) -> None:
    """Print each stage's share of the cores' time."""
    total = 1e3 * N_WORKERS * ours.seconds / n_clips
    busy = 1e3 * ours.cores * ours.seconds / n_clips
    parts = {
        **stages,
        "start the workers, send results": busy - sum(stages.values()),
        "waiting, or other jobs": total - busy,
    }
    print_table(
        [("where our time goes", "core-ms per clip", "share")]
        + [(name, f"{value:.2f}", f"{value / total:.0%}") for name, value in parts.items()]
    )


if __name__ == "__main__":
    main()
