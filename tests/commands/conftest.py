"""An empty folder in which `koser` is called, and a manifest in it."""

import sys

import pytest

from koser.cli import main
from koser.features.speech.extractors import EncoderExtractor


@pytest.fixture
def koser(monkeypatch, capsys, tmp_path):
    """Call the command in an empty folder; returns status, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KOSER_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
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
def manifest(koser, tone_corpus):
    status, _, err = koser(
        "prepare", "folder", tone_corpus(n_speakers=5, n_each=1), "--out", "m.parquet",
        "--speaker-pattern", r"(s\d)_",
    )  # fmt: skip
    assert status == 0, err
    return "m.parquet"


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
