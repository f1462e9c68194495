"""Latency of a stream: how long `feed` takes, and how late a segment becomes final.

Five minutes of the demo corpus with pauses, fed in pieces of 100 ms as a microphone would,
but without waiting. Partial results every 0.5 s. Random weights, so the borders of segments
mean nothing; their delays follow from window, hop and hang-over.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from koser.audio.reading import load
from koser.inference.recognizer import load_recognizer
from koser.inference.segments import TimelineOptions
from koser.inference.stream import EmotionStream
from measuring import new_parser, print_heading, print_table, print_verdict
from models import random_mfcc

PIECE_SECONDS = 0.1
RATE = 16_000


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    rows = [("", "p50 ms", "p95 ms", "max ms", "partial", "final", "load")]
    slowest = []
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary:
        folder = Path(temporary)
        models = random_mfcc(folder)
        sound = recording(folder, 0.5 if arguments.quick else 5.0)
        for name, model in zip(("torch", "ONNX"), models, strict=True):
            taken, delays, n_partial = fed(model, sound)
            p50, p95 = np.percentile(taken, [50, 95])
            slowest.append(p95)
            rows.append(
                (
                    name,
                    f"{p50:.1f}",
                    f"{p95:.1f}",
                    f"{max(taken):.1f}",
                    f"{n_partial}",
                    f"{len(delays)}",
                    f"{sum(taken) / (1000 * len(sound) / RATE):.3f}",
                )
            )
    print_table(rows)
    options = TimelineOptions()
    p50, p95 = np.percentile(delays, [50, 95])
    print(
        f"from a segment's end to its final result, in the sound's own time: median {p50:.1f} s, "
        f"95 % within {p95:.1f} s; window {options.window:g} s, hop {options.hop:g} s, "
        f"hang-over {options.activity.hangover:g} s"
    )
    worst = max(slowest)
    print_verdict(
        f"95 % of pieces of {1000 * PIECE_SECONDS:g} ms are done within {worst:.1f} ms",
        "less than the piece itself",
        is_met=worst < 1000 * PIECE_SECONDS,
    )


def recording(folder: Path, minutes: float) -> np.ndarray:
    from importlib import import_module

    path = folder / "stream.wav"
    import_module("37_long_recording").write_recording(path, max(1, round(minutes)))
    return load(path)[: round(minutes * 60 * RATE)]


def fed(model: Path, sound: np.ndarray) -> tuple[list[float], list[float], int]:
    """Milliseconds of each feed, seconds that final results came late, and partial results."""
    stream = EmotionStream(load_recognizer(model))
    stream.feed(sound[: 5 * RATE])
    stream.finish()  # once before: the first call of a model allocates
    stream = EmotionStream(load_recognizer(model))
    taken, delays, n_partial = [], [], 0
    size = round(PIECE_SECONDS * RATE)
    for first in range(0, len(sound), size):
        started = time.perf_counter()
        results = stream.feed(sound[first : first + size])
        taken.append(1000 * (time.perf_counter() - started))
        for result in results:
            if result.is_final:
                delays.append(stream.duration - result.segment.end)
            else:
                n_partial += 1
    stream.finish()
    return taken, delays, n_partial


if __name__ == "__main__":
    main()
