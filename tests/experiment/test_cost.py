"""What a run costs: counted against torch, memory against what was allocated."""

import json
import subprocess
import sys

import pytest
import torch

from koser.experiment.cost import measure_model
from koser.features.extraction import Clip
from koser.models.checkpoint import Checkpoint
from koser.systems.mfcc import MfccConfig, MfccSystem
from koser.systems.system import ParameterCount

# In a process of its own: one that has run other tests has memory to reuse.
PEAKS = """
import numpy as np
from koser.experiment.cost import forget_peak, peak_memory
block = np.ones(100_000_000 // 8)  # 100 MB, touched
high = peak_memory().process
del block
forget_peak()
low = peak_memory().process
block = np.ones(60_000_000 // 8)
print(high - low, peak_memory().process - low)
"""


def test_the_peak_is_that_since_it_was_forgotten():
    command = [sys.executable, "-c", PEAKS]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    fallen, risen = map(float, out.split())
    assert 80 < fallen < 120
    assert 40 < risen < 80


def test_a_parameter_that_two_networks_share_counts_once():
    shared = torch.nn.Linear(3, 4)
    frozen = torch.nn.Sequential(shared, torch.nn.Linear(4, 5)).requires_grad_(False)
    head = torch.nn.Sequential(shared, torch.nn.Linear(4, 2))
    shared.requires_grad_(True)
    counted = ParameterCount.of(head, frozen)
    assert counted.trained == (3 * 4 + 4) + (4 * 2 + 2)
    assert counted.total == (3 * 4 + 4) + (4 * 2 + 2) + (4 * 5 + 5)


@pytest.fixture
def model_file(tmp_path):
    system = MfccSystem(["angry", "neutral"], MfccConfig())
    system.to_checkpoint({}).write(tmp_path / "m.pth")
    return tmp_path / "m.pth"


def test_speed_is_measured_on_the_first_clips_and_says_on_what(model_file, tmp_path, write_wav):
    clips = [
        Clip(str(write_wav(tmp_path / f"{number}.wav", seconds=0.5 + number)))
        for number in range(3)
    ]
    cost = measure_model(model_file, clips)
    measured = cost["prediction"]
    assert measured["n_clips"] == 3
    assert measured["audio_seconds"] == pytest.approx(0.5 + 1.5 + 2.5)
    assert cost["real_time_factor"] == pytest.approx(
        measured["seconds"] / measured["audio_seconds"]
    )
    assert 0 < cost["real_time_factor"] < 5
    state = Checkpoint.read(model_file).state
    assert 0 < cost["n_parameters"] == cost["n_trained_parameters"]
    assert cost["n_parameters"] <= sum(tensor.numel() for tensor in state.values())
    json.dumps(cost)
