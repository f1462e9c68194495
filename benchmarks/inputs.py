"""What the benchmarks measure on: speech from the demo corpus, and where real corpora lie."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from koser.audio.reading import load
from koser.demo import corpus_folder
from koser.features.mfcc import MfccOptions

REPOSITORY = Path(__file__).resolve().parents[1]


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


def real_corpus(given: Path | None, *, option: str, name: str, source: str) -> Path:
    """The folder of a corpus that may not be passed on, or one line and exit status 1.

    Parameters
    ----------
    given : Path or None
        What the user said; by default ``shared/corpora/<name>`` beside the checkout.
    option : str
        The option that says it.
    name, source : str
        The corpus's folder and where to get it.
    """
    folder = given or REPOSITORY.parent / "shared" / "corpora" / name
    if not folder.is_dir():
        sys.exit(f"Error: no folder '{folder}'. Get the corpus ({source}) and give {option} FOLDER")
    return folder
