"""Recognising a folder: clips a second, against loops over its files.

Clips of 4 s at 44.1 kHz, 16 bit. The plain loop loads each file with librosa at 16 kHz,
extracts librosa's MFCCs and runs the same network on them. The second loop calls koser's
own `predict_file` for one file after the other. Random weights; all give the same
probabilities, but for the resampler of the first. In turns, median round.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from inputs import iter_clips, librosa_mfcc
from koser.inference.prediction import Prediction
from koser.inference.recognizer import Recognizer, load_recognizer
from measuring import new_parser, print_heading, print_table, print_verdict, time_in_turns
from models import random_mfcc

TARGET_RATIO = 3.0
SECONDS, RATE = 4.0, 44_100


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_clips = 32 if arguments.quick else 400
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary:
        folder = Path(temporary)
        run, exported = random_mfcc(folder)
        (folder / "clips").mkdir()
        for place, clip in enumerate(iter_clips(n_clips, seconds=SECONDS, sampling_rate=RATE)):
            soundfile.write(folder / "clips" / f"{place:04d}.wav", clip, RATE, "PCM_16")
        with_torch, with_onnx = load_recognizer(run), load_recognizer(exported)
        paths = sorted((folder / "clips").iterdir())
        works = {
            "plain: librosa, file by file": partial(plain_loop, with_torch, paths),
            "predict_file in a loop (torch)": partial(own_loop, with_torch, paths),
            "predict_file in a loop (ONNX)": partial(own_loop, with_onnx, paths),
            "predict_folder (torch)": partial(whole_folder, with_torch, folder / "clips"),
            "predict_folder (ONNX)": partial(whole_folder, with_onnx, folder / "clips"),
        }
        found = {name: work() for name, work in works.items()}  # untimed: imports, compilation
        timings = time_in_turns(works, n_rounds=1 if arguments.quick else 3)
    plain, *others = timings.values()
    rows = [("", "clips/s", "x real time", "cores", "x plain", "difference")]
    expected = found["predict_file in a loop (torch)"]
    for name, timing in timings.items():
        rate = n_clips / timing.seconds
        rows.append(
            (
                name,
                f"{rate:.0f}",
                f"{rate * SECONDS:,.0f}",
                f"{timing.cores:.2f}",
                f"{plain.seconds / timing.seconds:.1f}",
                f"{np.abs(found[name] - expected).max():.0e}",
            )
        )
    print_table(rows)
    loops, folders = others[:2], others[2:]
    best = min(folders, key=lambda timing: timing.seconds)
    own = min(loops, key=lambda timing: timing.seconds)
    print(f"against koser's own quicker loop: {own.seconds / best.seconds:.1f} times")
    ratio = plain.seconds / best.seconds
    print_verdict(
        f"a folder {ratio:.1f} times as fast as the plain loop over its files",
        f">= {TARGET_RATIO:g}",
        is_met=ratio >= TARGET_RATIO,
    )


def plain_loop(recognizer: Recognizer, paths: list[Path]) -> np.ndarray:
    import librosa
    import torch

    system = recognizer._model.system  # type: ignore[attr-defined]  # a checkpoint's
    network, rows = system._network, []
    for path in paths:
        waveform, _ = librosa.load(path, sr=16_000)
        features = librosa_mfcc(waveform, system.config.mfcc)
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(features, np.float32))[None]
            rows.append(network(batch, torch.tensor([batch.shape[2]])).softmax(1)[0].numpy())
    return np.array(rows)


def own_loop(recognizer: Recognizer, paths: list[Path]) -> np.ndarray:
    return rows_of([recognizer.predict_file(path) for path in paths])


def whole_folder(recognizer: Recognizer, folder: Path) -> np.ndarray:
    return rows_of([r for r in recognizer.iter_folder(folder) if isinstance(r, Prediction)])


def rows_of(predictions: list[Prediction]) -> np.ndarray:
    return np.array([list(each.probabilities.values()) for each in predictions])


if __name__ == "__main__":
    main()
