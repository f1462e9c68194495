"""Fixtures that several folders of tests share."""

from __future__ import annotations

import functools
import gc
import os
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Tests run side by side (pytest-xdist) on few cores: threads of torch's own would only
# contend. Read when torch is first imported, so it is set before anything else.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from typer.main import get_command

from fixtures.sound import write_tone, write_tones

if TYPE_CHECKING:  # xdist's first process loads this file too, and runs no test
    from koser.features.speech.loading import LoadedEncoder
    from koser.training.tables import FeatureTable

# How busy the machine is is no property of the code.
settings.register_profile("koser", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("koser")

_n_modules = 0  # imported when the collector last looked at everything


def pytest_collectstart() -> None:
    """Look for no garbage among what is imported until all tests are collected."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Let the garbage collector look at what tests make, not at millions of imported objects."""
    global _n_modules
    _n_modules = len(sys.modules)
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """The same for a library that a test was the first to need, and for what a file leaves."""
    result = yield
    is_last = nextitem is None or nextitem.path != item.path
    if is_last or len(sys.modules) > _n_modules + 100:
        pytest_collection_finish()
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Untrained networks have the same weights whichever tests ran before in this worker."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """Pictures of runs with a quarter of the pixels; tests/reporting draws them as users do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("koser.reporting.canvas.DPI", 75)
        yield


SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


@pytest.fixture
def feature_table(tmp_path) -> Callable[..., FeatureTable]:
    """Make a table of stored features in which a class is an offset of some coefficients."""
    from koser.features.store import FeatureStore
    from koser.training.tables import FeatureTable

    def make(
        n_per_class: int,
        *,
        n_classes: int = 3,
        n_variants: int = 1,
        contrast: float = 2.0,
        crop_frames: int = 0,
    ) -> FeatureTable:
        rng = np.random.default_rng(0)
        n_utterances = n_per_class * n_classes
        stores = tuple(
            FeatureStore(tmp_path / "store", {"extractor": "test", "variant": variant})
            for variant in range(n_variants)
        )
        keys = np.array([[f"{row}".encode() for row in range(n_utterances)]] * n_variants, "S16")
        targets = np.zeros((n_utterances, n_classes), np.float32)
        targets[np.arange(n_utterances), np.arange(n_utterances) % n_classes] = 1.0
        for variant, store in enumerate(stores):
            with store.writer() as writer:
                for row in range(n_utterances):
                    array = rng.normal(size=(40, int(rng.integers(8, 40)))) + variant * 100
                    array[row % n_classes : 40 : n_classes] += contrast
                    writer.append(bytes(keys[variant, row]), array.astype(np.float32))
        return FeatureTable(stores, keys, targets, crop_frames)

    return make


@pytest.fixture
def write_wav() -> Callable[..., Path]:
    """Write a 16-bit wav of a tone, making its folder."""
    return write_tone


@pytest.fixture
def tone_corpus(tmp_path) -> Callable[..., Path]:
    """Make ``<label>/<speaker>_<n>.wav`` in which a label is a pitch, and each speaker a shift."""
    return partial(write_tones, tmp_path / "tones")


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a tiny random encoder of a kind, made once; see `fixtures.encoders`."""
    root = tmp_path_factory.mktemp("encoders")

    def make(kind: str) -> Path:
        from fixtures.encoders import save_encoder  # transformers takes seconds to import

        folder = root / kind
        return folder if folder.exists() else save_encoder(kind, folder)

    return make


@pytest.fixture(scope="session")
def load_kind(encoder_folder) -> Callable[..., LoadedEncoder]:
    """Load a tiny encoder of a kind, anew in every call."""
    from koser.features.speech.loading import EncoderOptions, load_encoder

    def load(kind: str, **options: Any) -> LoadedEncoder:
        return load_encoder(EncoderOptions(name=str(encoder_folder(kind)), **options))

    return load


# Typer builds all 24 commands anew in every call, which takes longer than most of them do.
_command_of = functools.cache(get_command)


@pytest.fixture
def typed(monkeypatch, capsys, tmp_path):
    """Run a program's main function on arguments; returns status, standard output and error."""
    monkeypatch.setenv("KOSER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("typer.main.get_command", _command_of)

    def call(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["koser", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as error:
            status = error.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def koser(monkeypatch, typed, tmp_path):
    """Call the command in an empty folder; returns status, standard output and error."""
    monkeypatch.chdir(tmp_path)

    from koser.cli import main

    return partial(typed, main)


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory) -> Path:
    """Feature stores of many tests: what one extracted, the others find by its content."""
    return tmp_path_factory.mktemp("shared-store")


@pytest.fixture(scope="session")
def s3_server():
    """Host and port of a real S3 server on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def make_bucket(s3_server, monkeypatch):
    """Make a bucket behind a `Network` with the given bad days, and let `s3://` lead there."""
    from fixtures.stores import ENVIRONMENT, Bucket, Network, serving_network

    monkeypatch.setattr("koser.storage.retrying.Retries.wait", lambda self, n_failed: 0.0)
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.0
    )
    with ExitStack() as networks:

        def make(**bad_days) -> Bucket:
            network = networks.enter_context(serving_network(Network(s3_server, **bad_days)))
            for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": network.url}.items():
                monkeypatch.setenv(name, value)
            # A name of its own: drivers are kept, one for each bucket.
            return Bucket(network, f"b{uuid.uuid4().hex}")

        yield make


@pytest.fixture
def bucket(make_bucket):
    """A bucket on good days."""
    return make_bucket()


@pytest.fixture(scope="session")
def whisper_folders(tmp_path_factory) -> tuple[Path, Path]:
    """A tiny random Whisper, as transformers keeps it and as CTranslate2 does."""
    from fixtures.text import convert, save_whisper

    root = tmp_path_factory.mktemp("whispers")
    original = save_whisper(root / "original")
    return original, convert(original, root / "converted")


@pytest.fixture(scope="session")
def whisper_folder(whisper_folders) -> Path:
    """A tiny random Whisper for CTranslate2."""
    return whisper_folders[1]


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a tiny random text model of a kind, made once."""
    root = tmp_path_factory.mktemp("text-models")

    def make(kind: str = "bert") -> Path:
        from fixtures.text import save_text_model

        folder = root / kind
        return folder if folder.exists() else save_text_model(folder, kind=kind)

    return make
