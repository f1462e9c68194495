"""One run that the tests of reports share: tones, with names that would like to be HTML."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import soundfile

from koser.data.corpora.table import prepare
from koser.data.splits import SplitOptions
from koser.experiment.request import TrainRequest
from koser.experiment.run import Record, run_experiment
from koser.reporting.report import ReportOptions

QUICK = ("train.epochs=2", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")
HOSTILE = "<script>alert('h')</script>"


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """Pictures here are as users have them."""


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory):
    """Folder of a finished run on a corpus whose ids, speakers and labels are hostile."""
    root = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    pitches = {"angry": 900.0, "neutral": 300.0, HOSTILE: 120.0}
    rows = []
    for label, pitch in pitches.items():
        for speaker in range(4):
            for take in range(2):
                times = np.arange(round(16_000 * rng.uniform(0.2, 0.3))) / 16_000
                name = f"{len(rows):02d}.wav"
                # Noise too, so that two epochs leave mistakes to show.
                sound = 0.2 * np.sin(2 * np.pi * pitch * times) + rng.normal(0, 0.1, len(times))
                soundfile.write(root / name, sound, 16_000, "PCM_16")
                rows.append(
                    {"id": f'"><img src=x onerror={take}>{len(rows)}', "path": name, "label": label,
                     "speaker": f"s{speaker}|&", "gender": ["female", "male"][speaker % 2]}
                )  # fmt: skip
    pl.DataFrame(rows).write_csv(root / "t<b>.csv")
    prepare(root / "t<b>.csv").write(root / "m.parquet")
    request = TrainRequest(
        "mfcc",
        "speaker",
        manifest=root / "m.parquet",
        split_options=SplitOptions(test_fraction=0.4),
        overrides=QUICK,
    )
    record = Record(("koser", "train", "--out", "<i>"), ReportOptions("en"))
    run_experiment(request.resolve(), root / "run", store_root=root / "store", record=record)
    return root / "run"
