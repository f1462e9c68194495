"""Manifests of any length over a few sounds: what is measured is how rows are handled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import soundfile

from inputs import iter_clips
from koser.audio.reading import SAMPLING_RATE
from koser.data.manifest import Manifest, Provenance, build_table
from koser.labels import EMOTIONS

_FILE_ROWS = 100_000  # of each file of a sharded manifest
N_SOUNDS = 64


def write_sounds(folder: Path, *, seconds: float, n_sounds: int = N_SOUNDS) -> list[Path]:
    """Sounds of the demo corpus, synthetic, all of one length."""
    folder.mkdir(parents=True)
    paths = []
    for number, clip in enumerate(iter_clips(n_sounds, seconds=seconds)):
        paths.append(folder / f"{number:03d}.wav")
        soundfile.write(paths[-1], clip, SAMPLING_RATE, "PCM_16")
    return paths


def write_generated(folder: Path, sounds: list[Path], n_rows: int, *, seconds: float) -> None:
    """A folder of manifests with `n_rows` utterances, each of one of `sounds`."""
    folder.mkdir(parents=True)
    template = build_table(
        [
            {
                "id": "", "path": str(path), "duration": seconds, "sampling_rate": SAMPLING_RATE,
                "n_channels": 1, "label": EMOTIONS[number % len(EMOTIONS)], "corpus": "generated",
                "speaker": f"s{number % 8}",
            }
            for number, path in enumerate(sounds)
        ]
    )  # fmt: skip
    provenance = Provenance(
        "generated", str(folder), EMOTIONS, "generated", "speaker", 0, is_synthetic=True
    )
    for first in range(0, n_rows, _FILE_ROWS):
        rows = np.arange(first, min(first + _FILE_ROWS, n_rows))
        ids = pl.Series("id", [f"u{row:08d}" for row in rows.tolist()])
        table = template[rows % len(sounds)].with_columns(ids)
        own = replace(provenance, n_rows_in=len(rows))
        Manifest(table, own).write(folder / f"{first:09d}.parquet")
