"""The sizing page against sums worked out by hand."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sizing():
    specification = importlib.util.spec_from_file_location("sizing", ROOT / "scripts" / "sizing.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["sizing"] = module  # dataclasses look themselves up
    specification.loader.exec_module(module)
    yield module
    del sys.modules["sizing"]


def cells(table, first):
    """The cells of a row, by its first one."""
    return next(row for row in table if row[0] == first)[1:]


def test_core_hours_and_prices_are_those_of_the_back_of_an_envelope(sizing):
    # 10^7 clips of 6 s = 6·10^7 s of sound; 100 s of it a second: 6·10^5 core-seconds of ideal
    # work, 10^6 at 60 %; / 3600 = 277.8 core-hours; at 0.05 $ = 13.9 $;
    # 277.8 / 24 / 10 cores = 1.157 machines; a GPU as fast as 50 cores: 5.56 h, at 2 $ = 11.1 $
    given = sizing.Assumptions(
        seconds=6, core_hour=0.05, gpu_hour=2, cores=10, efficiency=0.6, gpu_speedup=50
    )
    job = sizing.Job("job", 100, "nowhere", on_gpu=True)
    row = list(sizing.compute_rows([job], given))[2]
    assert row == ["job", "100", "nowhere", "10^7", "278", "13.9", "1.16", "5.56", "11.1"]
    job = sizing.Job("job", 100, "nowhere")
    assert list(sizing.compute_rows([job], given))[2][-2:] == ["–", "–"]


def test_what_is_kept_and_asked_for_is_counted(sizing):
    # 2 s at 16 kHz: 1 + 32000 // 256 = 126 frames of 40 float32 = 20,160 bytes
    given = sizing.Assumptions(seconds=2, gb_month=0.02, get=0.001, put=0.01)
    kept = list(sizing.storage_rows(given))
    assert cells(kept, "features, mfcc")[:3] == ["20,200", "2.02", "202"]
    assert cells(kept, "the sound itself")[-1] == "1,280"  # 64 kB · 10^9 = 64 TB at 20 $ a TB
    asked = list(sizing.request_rows(given))
    # 10^7 objects: 10^4 listings at 1 cent a thousand; 2·10^7 reads at 0.1 cent a thousand
    assert cells(asked, "list a prefix")[1:5:3] == ["10,000", "0.1"]
    assert cells(asked, "one pass over the sound (prepare, extract, predict)")[4] == "20"


def test_bytes_of_features_are_those_of_the_arrays(sizing):
    import numpy as np

    from koser.features.mfcc import MfccExtractor, MfccOptions

    features = MfccExtractor(MfccOptions())(np.zeros(5 * 16_000, np.float32))
    assert sizing.kept_bytes(5.0)["features, mfcc"] == features.nbytes


OUTPUTS = {
    "03_extraction": "                clips  seconds  cores  ms per clip\n"
    "plain: librosa    200     1.61   1.98         8.04\n"
    "ours             2000     5.00   2.00         2.84\n",
    "36_folder_throughput": "predict_folder (torch)    352        1,500   1.50      6.4\n",
    "08_encoder_speed": "machine: 4 of 8 cores of a CPU\n"
    "ours: bucketed, sized in seconds     10.9         12.0\n",
    "14_transcription": "koser, short + 3 s              0.050    2.0     9.10 %\n",
}


def test_speeds_are_read_from_what_the_benchmarks_printed(sizing, tmp_path):
    for name, text in OUTPUTS.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    speeds = [(job.source, job.speed) for job in sizing.measured_jobs(tmp_path)]
    # 2000 · 5 s in 5 s on 2 cores; 1500 on 1.5 cores; 12 on 4 cores; 1 / (0.05 · 2 cores)
    assert speeds == [("03", 1_000), ("36", 1_000), ("08", 3), ("14", 10)]
    (tmp_path / "14_transcription.txt").unlink()
    assert sizing.measured_jobs(tmp_path)[-1].source == "assumed: 14 not run"
    (tmp_path / "03_extraction.txt").write_text("changed", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"Adapt scripts/sizing\.py to it"):
        sizing.measured_jobs(tmp_path)


def test_the_page_holds_what_the_script_prints(sizing, tmp_path):
    """After new benchmarks: python scripts/sizing.py --write docs/scaling.md."""
    page = tmp_path / "scaling.md"
    shutil.copy(ROOT / "docs" / "scaling.md", page)
    sizing.write_tables(page, sizing.make_tables(sizing.Assumptions()))
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "scaling.md").read_text("utf-8")
