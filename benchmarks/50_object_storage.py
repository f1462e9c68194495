"""Recognising and probing clips in object storage: fetched ahead, against one after the other.

Clips of 4 s at 16 kHz in a real S3 server (moto's) on loopback, whose every answer to a read
takes 50 ms longer, as that of a store in a network does. The plain way calls `predict_file`,
or `probe`, for one URL after the other. Random weights; the probabilities are compared. In
turns, median round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from inputs import iter_clips
from koser.audio.reading import AudioInfo, Clip, probe
from koser.data.corpora.probing import probe_all
from koser.engines.local import SERIAL
from koser.inference.prediction import Prediction
from koser.inference.recognizer import Recognizer, load_recognizer
from measuring import new_parser, print_heading, print_table, print_verdict, time_in_turns
from models import random_mfcc
from object_store import serving, upload

TARGET_RATIO = 5.0
LATENCY = 0.05  # seconds
SECONDS, RATE = 4.0, 16_000


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_clips = 24 if arguments.quick else 200
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary, serving(LATENCY) as store:
        folder = Path(temporary)
        recognizer = load_recognizer(random_mfcc(folder)[0])
        (folder / "clips").mkdir()
        for place, clip in enumerate(iter_clips(n_clips, seconds=SECONDS, sampling_rate=RATE)):
            soundfile.write(folder / "clips" / f"{place:04d}.wav", clip, RATE, "PCM_16")
        files = sorted((folder / "clips").iterdir())
        urls = upload(files, f"{store}/clips")
        works = {
            "plain: predict_file, URL by URL": partial(one_by_one, recognizer, urls),
            "ours: predict_files of URLs": partial(ahead, recognizer, urls),
            "the same files on the disk": partial(ahead, recognizer, list(map(str, files))),
            "plain: probe, URL by URL": partial(probe_one_by_one, urls),
            "ours: probed ahead, as `koser prepare`": partial(probe_ahead, urls),
        }
        found = {name: work() for name, work in works.items()}  # untimed: imports, connections
        timings = time_in_turns(works, n_rounds=1 if arguments.quick else 3)
    rows = [("", "seconds", "clips/s", "cores")]
    rows += [
        (name, f"{each.seconds:.2f}", f"{n_clips / each.seconds:.0f}", f"{each.cores:.2f}")
        for name, each in timings.items()
    ]
    print_table(rows)
    plain, ours, local, plain_probe, our_probe = timings
    # Alone and in a batch a clip's sums are of another order; URLs and files are batched alike.
    difference = float(np.abs(found[ours] - found[plain]).max())
    is_same = np.array_equal(found[ours], found[local]) and found[plain_probe] == found[our_probe]
    print_verdict(
        f"from URLs as from files: {is_same}; in batches and alone differ by {difference:.1e}",
        "True, <= 1e-6",
        is_met=is_same and difference <= 1e-6,
    )
    for first, second in ((plain, ours), (plain_probe, our_probe)):
        ratio = timings[first].seconds / timings[second].seconds
        print_verdict(
            f"{second}: {ratio:.1f} times as fast as {first.removeprefix('plain: ')}",
            f">= {TARGET_RATIO:g}",
            is_met=ratio >= TARGET_RATIO,
        )


def one_by_one(recognizer: Recognizer, urls: Sequence[str]) -> np.ndarray:
    return rows_of([recognizer.predict_file(url) for url in urls])


def ahead(recognizer: Recognizer, urls: Sequence[str]) -> np.ndarray:
    found = recognizer.iter_clips(Clip(url) for url in urls)
    return rows_of([each for each in found if isinstance(each, Prediction)])


def rows_of(predictions: Sequence[Prediction]) -> np.ndarray:
    return np.array([list(each.probabilities.values()) for each in predictions])


def probe_one_by_one(urls: Sequence[str]) -> list[AudioInfo]:
    return [probe(url) for url in urls]


def probe_ahead(urls: Sequence[str]) -> list[object]:
    return list(probe_all(urls, SERIAL))


if __name__ == "__main__":
    main()
