"""A manifest in the folder where `koser` is called, and a count of what encoders hear."""

import pytest

from fixtures.values import rate
from koser.data.manifest import Manifest
from koser.features.speech.extractors import EncoderExtractor


@pytest.fixture
def manifest(koser, tone_corpus):
    status, _, err = koser(
        "prepare", "folder", tone_corpus(n_speakers=5, n_each=1), "--out", "m.parquet",
        "--speaker-pattern", r"(s\d)_",
    )  # fmt: skip
    assert status == 0, err
    return "m.parquet"


@pytest.fixture
def rated(koser, tone_corpus, tmp_path):
    """``m.parquet``: values around a centre for each pitch; two utterances have none."""
    status, _, err = koser(
        "prepare", "folder", tone_corpus(n_speakers=6, n_each=2), "--out", "labels.parquet",
        "--speaker-pattern", r"(s\d)_",
    )  # fmt: skip
    assert status == 0, err
    rate(Manifest.read(tmp_path / "labels.parquet")).write(tmp_path / "m.parquet")
    return tmp_path


@pytest.fixture
def n_encoded(monkeypatch):
    """How many waveforms an encoder has heard, as a list of counts."""
    counts = []
    extract = EncoderExtractor.extract

    def counted(self, waveforms):
        counts.append(len(waveforms))
        return extract(self, waveforms)

    monkeypatch.setattr(EncoderExtractor, "extract", counted)
    return counts
