"""A prediction from nothing: `koser predict model.onnx a.wav`, and one when all is loaded.

Wall time of whole processes and the peak of their resident memory, in turns: the same
network from ONNX and from its checkpoint with torch, and what others import before they
begin. Then a clip of 4 s in a process that is warm. Random weights.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from inputs import iter_clips
from koser.inference.recognizer import load_recognizer
from measuring import new_parser, print_heading, print_table, print_verdict, time_in_turns
from models import random_mfcc

TARGET_SECONDS, TARGET_MB = 1.0, 250.0
CLIP_SECONDS = 4.0
# Runs a command of koser and prints what `measuring.memory_mb` would: a parent cannot see it.
WITH_PEAK = """
import sys
from koser.cli import main
try:
    main()
finally:
    lines = open("/proc/self/status", encoding="ascii").read().splitlines()
    print(next(line for line in lines if line.startswith("VmHWM")), file=sys.stderr)
"""


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_rounds = 3 if arguments.quick else 10
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary:
        folder = Path(temporary)
        run, exported = random_mfcc(folder)
        (clip,) = iter_clips(1, seconds=CLIP_SECONDS)
        soundfile.write(folder / "a.wav", clip, 16_000)
        seconds = cold(run, exported, folder / "a.wav", n_rounds)
        peak = peak_mb(["predict", str(exported), str(folder / "a.wav")])
        torch_peak = peak_mb(["predict", str(run), str(folder / "a.wav")])
        print(f"peak resident memory: {peak:.0f} MB from ONNX, {torch_peak:.0f} MB with torch")
        warm(run, exported, clip, 50 if arguments.quick else 500)
    print_verdict(
        f"cold prediction from ONNX in {seconds:.2f} s",
        f"<= {TARGET_SECONDS:g} s",
        is_met=seconds <= TARGET_SECONDS,
    )
    print_verdict(
        f"at most {peak:.0f} MB resident", f"<= {TARGET_MB:g} MB", is_met=peak <= TARGET_MB
    )


def cold(run: Path, exported: Path, clip: Path, n_rounds: int) -> float:
    koser = str(Path(sys.executable).with_name("koser"))
    commands = {
        "plain: import transformers.pipeline": [
            *(sys.executable, "-c", "from transformers import pipeline")
        ],
        "koser predict RUN a.wav (torch)": [koser, "predict", str(run), str(clip)],
        "koser predict model.onnx a.wav": [koser, "predict", str(exported), str(clip)],
    }
    for command in commands.values():
        start(command)  # once before, so that all files are in the page cache
    timings = time_in_turns(
        {name: partial(start, command) for name, command in commands.items()}, n_rounds=n_rounds
    )
    rows = [(name, f"{each.seconds:.2f}", f"{each.cores:.1f}") for name, each in timings.items()]
    print_table([(f"cold, median of {n_rounds}", "seconds", "cores"), *rows])
    return list(timings.values())[-1].seconds


def start(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def peak_mb(arguments: list[str]) -> float:
    command = [sys.executable, "-c", WITH_PEAK, *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(result.stderr.split()[-2]) * 1024 / 1e6


def warm(run: Path, exported: Path, clip: np.ndarray, n_times: int) -> None:
    rows = [(f"warm, one clip of {CLIP_SECONDS:g} s, {n_times} times", "p50 ms", "p95 ms")]
    for name, model in (("checkpoint (torch)", run), ("ONNX", exported)):
        recognizer = load_recognizer(model)
        taken = []
        for _ in range(n_times + 5):
            started = time.perf_counter()
            recognizer.predict_array(clip, 16_000)
            taken.append(1000 * (time.perf_counter() - started))
        p50, p95 = np.percentile(taken[5:], [50, 95])
        rows.append((name, f"{p50:.1f}", f"{p95:.1f}"))
    print_table(rows)


if __name__ == "__main__":
    main()
