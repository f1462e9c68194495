"""A model, sounds and servers for the tests of this folder."""

import numpy as np
import pytest
import soundfile

from fixtures.servers import running
from koser.config import resolve_config
from koser.inference.models import load_model
from koser.inference.recognizer import Recognizer
from koser.systems.mfcc import MfccConfig, MfccSystem

LABELS = ("angry", "neutral", "calm")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A run folder with an untrained network: what matters here is what surrounds it."""
    config = resolve_config(MfccConfig, overrides=["cnn.channels=[4, 6]", "cnn.hidden_size=8"])
    folder = tmp_path_factory.mktemp("serving") / "run"
    folder.mkdir()
    system = MfccSystem(LABELS, config)
    system.to_checkpoint({"split": "none"}).write(folder / "best_model_mfcc.pth")
    return folder


@pytest.fixture(scope="session")
def model(model_folder):
    return load_model(model_folder)


@pytest.fixture(scope="session")
def recognizer(model):
    """The same model, asked directly."""
    return Recognizer(model)


@pytest.fixture(scope="session")
def sound_file(tmp_path_factory):
    """Write noise that rises and falls as a file of any format."""
    folder = tmp_path_factory.mktemp("sounds")

    def make(*, seconds=0.7, rate=16_000, container="WAV", subtype="PCM_16", n_channels=1, seed=0):
        rng = np.random.default_rng(seed)
        n_samples = round(seconds * rate)
        waveform = rng.standard_normal((n_samples, n_channels)) * 0.2
        waveform *= np.hanning(n_samples)[:, None]
        path = folder / f"{seconds}-{rate}-{container}-{subtype}-{n_channels}-{seed}"
        if not path.exists():
            soundfile.write(path, waveform, rate, subtype, format=container)
        return path

    return make


@pytest.fixture(scope="session")
def served(model):
    """One server with default limits, for all tests that leave it as it is."""
    with running(model) as server:
        yield server


@pytest.fixture
def serve(model):
    """Start a server with limits of the test's own."""

    def start(**options):
        return running(model, **options)

    return start
