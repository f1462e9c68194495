"""What an audit wants to know of a clip's sound beside what is said in it.

Level, bandwidth and the silence before the first word tell microphones, rooms and codecs
apart. Where a corpus was recorded emotion by emotion, they tell the emotions apart too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from koser.audio.fingerprint import RATE, Fingerprint, fingerprint
from koser.audio.resampling import resample

DIGEST_SIZE = 16  # bytes
VERSION = 3  # of everything below and of the fingerprint: kept records are of one version

_FRAME_SECONDS = 0.01
_SPEECH_DB = 40.0  # below the loudest frame: nobody speaks
_BAND_DB = 60.0  # below the strongest frequency: nothing was recorded
_N_FFT = 1_024
_N_SPECTRA = 32
_FLOOR = 1e-10  # mean square of what counts as digital silence, -100 dBFS
_N_NUMBERS = 3
_HEAD = DIGEST_SIZE // 4 + _N_NUMBERS  # words of a record before the fingerprint


@dataclass(frozen=True, eq=False)
class SoundFacts:
    """One clip's sound.

    Attributes
    ----------
    digest : bytes
        Hash of the length and of all samples, brought to 5 kHz: the same for a WAV file and
        its FLAC, and for hardly anything else.
    level : float
        Root mean square in dB relative to full scale.
    bandwidth : float
        Hz: the highest frequency within 60 dB of the strongest one.
    leading_silence : float
        Seconds before the first 10 ms within 40 dB of the loudest ones.
    fingerprint : np.ndarray [shape=(n_frames, 2), dtype=uint32]
        See `koser.audio.fingerprint`.
    """

    digest: bytes
    level: float
    bandwidth: float
    leading_silence: float
    fingerprint: Fingerprint

    def to_words(self) -> np.ndarray:
        """All of it as one array of uint32, to be kept in a store."""
        numbers = np.array([self.level, self.bandwidth, self.leading_silence], np.float32)
        head = np.frombuffer(self.digest, np.uint32)
        return np.concatenate([head, numbers.view(np.uint32), self.fingerprint.ravel()])

    @classmethod
    def from_words(cls, words: np.ndarray) -> SoundFacts:
        """What `to_words` made an array of."""
        level, bandwidth, silence = words[DIGEST_SIZE // 4 : _HEAD].view(np.float32).tolist()
        digest = words[: DIGEST_SIZE // 4].tobytes()
        return cls(digest, level, bandwidth, silence, words[_HEAD:].reshape(-1, 2))


def measure(waveform: np.ndarray, sampling_rate: int) -> SoundFacts:
    """Measure a clip.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        Mono float32 as it is in the file, not resampled.
    sampling_rate : int
        Hz.

    Returns
    -------
    SoundFacts
        Nothing in it depends on any other clip.
    """
    samples = np.ascontiguousarray(waveform, np.float32)
    # The fingerprint needs it, and it is a tenth of the bytes to hash.
    slow = resample(samples, sampling_rate, RATE)
    content = hashlib.sha256(f"{len(samples)} {sampling_rate} ".encode())
    content.update(slow.data)
    power = np.square(samples)
    return SoundFacts(
        digest=content.digest()[:DIGEST_SIZE],
        level=10 * float(np.log10(np.mean(power, dtype=np.float64) + _FLOOR)),
        bandwidth=_bandwidth(samples, sampling_rate),
        leading_silence=_leading_silence(power, sampling_rate),
        fingerprint=fingerprint(slow, RATE),
    )


def _leading_silence(power: np.ndarray, sampling_rate: int) -> float:
    length = max(1, round(_FRAME_SECONDS * sampling_rate))
    n_frames = len(power) // length
    if not n_frames:
        return 0.0
    level = power[: n_frames * length].reshape(n_frames, length).mean(axis=1)
    is_speech = level > max(float(level.max()) * 10 ** (-_SPEECH_DB / 10), _FLOOR)
    # argmax of nothing but False is 0; a silent clip is silence to its end
    first = int(is_speech.argmax()) if is_speech.any() else n_frames
    return first * length / sampling_rate


def _bandwidth(samples: np.ndarray, sampling_rate: int) -> float:
    n_blocks = len(samples) // _N_FFT
    if not n_blocks:
        return 0.0
    chosen = np.unique(np.linspace(0, n_blocks - 1, min(n_blocks, _N_SPECTRA)).astype(np.int64))
    blocks = samples[: n_blocks * _N_FFT].reshape(n_blocks, _N_FFT)[chosen]
    spectra = np.abs(np.fft.rfft(blocks * np.hanning(_N_FFT).astype(np.float32))) ** 2
    power = spectra.mean(axis=0)
    is_used = power > max(float(power.max()) * 10 ** (-_BAND_DB / 10), _FLOOR)
    return float(np.flatnonzero(is_used)[-1] * sampling_rate / _N_FFT) if is_used.any() else 0.0
