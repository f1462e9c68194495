"""An hour of speech as a timeline: memory, and times real time.

`koser predict MODEL long.wav --timeline` on 10 and on 60 minutes of the demo corpus, end to
end with pauses, 16 kHz 16 bit; each in a process of its own. Random weights.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from koser.audio.reading import load
from koser.demo import corpus_folder
from measuring import new_parser, print_heading, print_table, print_verdict
from models import random_mfcc

TARGET_MB, TARGET_GROWTH = 400.0, 0.10
RATE = 16_000
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
    minutes = (1, 6) if arguments.quick else (10, 60)
    rows = [("", "segments", "seconds", "x real time", "real-time factor", "peak MB")]
    peaks: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary:
        folder = Path(temporary)
        run, exported = random_mfcc(folder)
        for length in minutes:
            sound = folder / f"{length}.wav"
            write_recording(sound, length)
            for name, model in (("ONNX", exported), ("torch", run)):
                seconds, peak, n_segments = make_timeline(model, sound)
                peaks.setdefault(name, []).append(peak)
                rows.append(
                    (
                        f"{length} minutes, {name}",
                        f"{n_segments}",
                        f"{seconds:.1f}",
                        f"{60 * length / seconds:.0f}",
                        f"{seconds / (60 * length):.4f}",
                        f"{peak:.0f}",
                    )
                )
            sound.unlink()
    print_table(rows)
    for name, (short, long) in peaks.items():
        growth = long / short - 1
        print_verdict(
            f"{name}: {minutes[1]} minutes take {long:.0f} MB",
            f"<= {TARGET_MB:g} MB",
            is_met=long <= TARGET_MB,
        )
        print_verdict(
            f"{name}: {100 * growth:+.1f} % against {minutes[0]} minutes",
            f"within {100 * TARGET_GROWTH:g} %",
            is_met=abs(growth) <= TARGET_GROWTH,
        )


def write_recording(path: Path, minutes: int) -> None:
    rng = np.random.default_rng(0)
    clips = [load(clip) for clip in sorted(corpus_folder().glob("*.flac"))]
    n_left = minutes * 60 * RATE
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        while n_left > 0:
            clip = clips[rng.integers(len(clips))]
            pause = rng.normal(scale=1e-3, size=int(rng.exponential(0.6) * RATE))
            for piece in (clip, pause):
                file.write(piece[:n_left])
                n_left -= min(n_left, len(piece))


def make_timeline(model: Path, sound: Path) -> tuple[float, float, int]:
    """Seconds, peak MB and segments of a whole command."""
    command = [sys.executable, "-c", WITH_PEAK, "predict", str(model), str(sound)]
    started = time.perf_counter()
    result = subprocess.run(
        [*command, "--timeline", "--format", "rttm"], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    return seconds, int(result.stderr.split()[-2]) * 1024 / 1e6, len(result.stdout.splitlines())


if __name__ == "__main__":
    main()
