"""What the benchmarks measure on: speech from the demo corpus, and where real corpora lie."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from koser.audio.reading import load
from koser.demo import corpus_folder
from koser.features.mfcc import MfccOptions

REPOSITORY = Path(__file__).resolve().parents[1]
# Corpus: its usual folder, and where to get it.
_SOURCES = {
    "emotiontts": ("emotiontts_open_db", "https://github.com/emotiontts/emotiontts_open_db"),
    "ravdess": ("ravdess", "https://zenodo.org/records/1188976"),
}


def iter_clips(
    n_clips: int, *, seconds: float = 5.0, sampling_rate: int = 16_000, seed: int = 0
) -> Iterator[np.ndarray]:
    """Clips of one length, each of other utterances of the demo corpus, end to end.

    Yields
    ------
    np.ndarray [shape=(round(seconds * sampling_rate),)]
        float32.
    """
    rng = np.random.default_rng(seed)
    paths = sorted(corpus_folder().glob("*.flac"))
    utterances = [load(path, sampling_rate=sampling_rate) for path in paths]
    n_samples = round(seconds * sampling_rate)
    for _ in range(n_clips):
        pieces: list[np.ndarray] = []
        while sum(map(len, pieces)) < n_samples:
            pieces.append(utterances[rng.integers(len(utterances))])
        yield np.concatenate(pieces)[:n_samples]


def clips_of_many_lengths(n_clips: int) -> Iterator[np.ndarray]:
    """Clips of 1.5 to 12 s at 16 kHz, as unequal as utterances are, in no order.

    Yields
    ------
    np.ndarray [shape=(n_samples,)]
        float32.
    """
    lengths = np.clip(np.random.default_rng(0).lognormal(1.4, 0.55, n_clips), 1.5, 12.0)
    clips = iter_clips(n_clips, seconds=12.0)
    for clip, seconds in zip(clips, lengths, strict=True):
        yield clip[: round(seconds * 16_000)]


def librosa_mfcc(waveform: np.ndarray, options: MfccOptions) -> np.ndarray:
    """The plain way: librosa's MFCC with koser's settings [shape=(n_mfcc, n_frames)]."""
    import librosa

    features: np.ndarray = librosa.feature.mfcc(
        y=waveform,
        sr=options.sampling_rate,
        n_mfcc=options.n_mfcc,
        n_fft=options.n_fft,
        win_length=options.win_length,
        hop_length=options.hop_length,
        n_mels=options.n_mels,
        fmin=options.f_min,
        fmax=options.f_max,
    )
    return features


def add_corpus_option(parser: argparse.ArgumentParser, corpus: str) -> None:
    """Let the user say where a corpus is: ``--emotiontts FOLDER``, ``--ravdess FOLDER``."""
    parser.add_argument(f"--{corpus}", type=Path, metavar="FOLDER", help="the corpus")


def real_corpus(arguments: argparse.Namespace, corpus: str) -> Path:
    """The folder of a corpus that may not be passed on, or one line and exit status 1.

    It is what the user said, or ``shared/corpora/`` beside the checkout has it.
    """
    name, source = _SOURCES[corpus]
    folder: Path = getattr(arguments, corpus) or REPOSITORY.parent / "shared" / "corpora" / name
    if not folder.is_dir():
        sys.exit(
            f"Error: no folder '{folder}'. Get the corpus ({source}) and give --{corpus} FOLDER"
        )
    return folder
