"""A model, sounds and servers for the tests of this folder."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from fixtures.servers import running
from koser.audio.reading import load
from koser.config import resolve_config
from koser.demo import corpus_folder
from koser.evaluation.dimensions import DIMENSIONS
from koser.inference.models import load_model
from koser.inference.recognizer import Recognizer
from koser.inference.values import load_regressor
from koser.serving.values import ValueService
from koser.systems import DIMENSIONAL
from koser.systems.mfcc import MfccConfig, MfccSystem

LABELS = ("angry", "neutral", "calm")
CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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
def values_folder(tmp_path_factory):
    """A run folder of `koser regress`, as untrained."""
    config = resolve_config(MfccConfig, overrides=["cnn.channels=[4, 6]", "cnn.hidden_size=8"])
    folder = tmp_path_factory.mktemp("values") / "run"
    folder.mkdir()
    made = MfccSystem(DIMENSIONS, config).to_checkpoint({"split": "none"})
    scale = {"scaler.mean": torch.tensor([3.0, 2.5]), "scaler.scale": torch.tensor([1.0, 0.5])}
    values = replace(made, system=f"mfcc{DIMENSIONAL}", state={**made.state, **scale})
    values.write(folder / "best_model_mfcc.pth")
    return folder


@pytest.fixture(scope="session")
def regressor(values_folder):
    return load_regressor(values_folder)


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


@pytest.fixture(scope="session")
def served_values(regressor):
    """The same of a model of valence and arousal."""
    with running(regressor, service=ValueService) as server:
        yield server


@pytest.fixture
def serve(model):
    """Start a server with limits of the test's own."""

    def start(**options):
        return running(model, **options)

    return start


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Utterances with pauses between them; the name must not reach the server's log."""
    pieces = []
    for path in sorted(corpus_folder().glob("*.flac"))[:5]:
        pieces += [load(path), np.zeros(16_000, np.float32)]
    path = tmp_path_factory.mktemp("speech") / "상담 1.wav"
    soundfile.write(path, np.concatenate(pieces), 16_000, "PCM_16")
    return path


@pytest.fixture(scope="module")
def chromium(speech):
    from playwright.sync_api import sync_playwright

    microphone = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={speech}%noloop",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET + microphone)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, served):
    """Open the page in a browser of its own; a script error or a refused load fails the test."""
    contexts, errors = [], []

    def open(*, url=served.url, allowed=(), **options):
        context = chromium.new_context(**{"locale": "en-GB", "accept_downloads": True, **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda line: (
                errors.append(line.text)
                if line.type == "error" and not any(each in line.text for each in allowed)
                else None
            ),
        )
        hosts = []
        page.on("request", lambda request: hosts.append(request.url))
        page.goto(url)
        page.hosts = hosts
        return page

    yield open
    for context in contexts:
        context.close()
    assert errors == []
