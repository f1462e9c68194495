"""What happens to speech on its way to a recogniser: noise, telephone, rooms, bad levels.

Every draw has an address, so that a degraded utterance is the same whenever, wherever and beside
whatever it is made. The level is no part of it: at 20 and at 0 dB an utterance meets the same
noise, and a curve over levels is not roughened by other draws.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soundfile

from koser.audio.augmentation import change_speed
from koser.audio.encoding import encode_opus
from koser.audio.reading import SAMPLING_RATE
from koser.audio.resampling import resample
from koser.errors import AudioError, ConfigError

Law = Literal["A", "mu"]

N_TALKERS = 6  # voices in babble: enough that no single one can be followed
TELEPHONE_RATE = 8_000  # Hz


@dataclass(frozen=True)
class Kind:
    """A way to degrade speech.

    Attributes
    ----------
    levels : tuple[float, ...]
        How strongly, from the mildest on (of speed: from slow to fast).
    unit : str
        Of the levels.
    """

    levels: tuple[float, ...]
    unit: str


_RATIOS = (20.0, 15.0, 10.0, 5.0, 0.0)
KINDS = {
    "noise": Kind(_RATIOS, "dB SNR"),  # white
    "babble": Kind(_RATIOS, "dB SNR"),
    "g711a": Kind((64.0,), "kbit/s"),  # A-law: telephone in Korea and Europe
    "g711u": Kind((64.0,), "kbit/s"),  # µ-law: in America and Japan
    "opus": Kind((24.0, 12.0, 6.0), "kbit/s"),
    "clipping": Kind((0.5, 0.2, 0.1, 0.05), "of the peak"),
    "speed": Kind((0.8, 0.9, 1.1, 1.2), "×"),
    "reverberation": Kind((0.2, 0.5, 1.0), "s RT60"),
}


@dataclass(frozen=True)
class Degradation:
    """A kind at a level.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    level : float
        In the kind's unit.
    """

    kind: str
    level: float

    @property
    def name(self) -> str:
        """Kind, level and unit."""
        return f"{self.kind} {self.level:g} {KINDS[self.kind].unit}"


def list_degradations(kinds: Sequence[str] = ()) -> tuple[Degradation, ...]:
    """Every level of `kinds`, in the order of `KINDS`; of all of them, if none is named.

    Raises
    ------
    ConfigError
        If there is no such kind.

    Examples
    --------
    >>> [each.level for each in list_degradations(["opus"])]
    [24.0, 12.0, 6.0]
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ConfigError(
            f"No degradation is called '{unknown[0]}'. There are: {', '.join(KINDS)}."
        )
    chosen = [kind for kind in KINDS if not kinds or kind in kinds]
    return tuple(Degradation(kind, level) for kind in chosen for level in KINDS[kind].levels)


def draw_at(seed: int, kind: str, utterance: str) -> np.random.Generator:
    """The draws of an utterance that is degraded: a generator that depends on this alone."""
    address = f"{seed}\0{kind}\0{utterance}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(address).digest()[:16]))


def degrade(
    waveform: np.ndarray,
    degradation: Degradation,
    rng: np.random.Generator,
    talkers: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """What is left of a waveform.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono, at least one sample; left as it is.
    degradation : Degradation
        What happens to it.
    rng : np.random.Generator
        Of every draw; see `draw_at`.
    talkers : Sequence[np.ndarray]
        Other voices (16 kHz mono), for babble.

    Returns
    -------
    np.ndarray [shape=(n_samples,), or round(n_samples / level) for speed]
        float32. Noise and reverberation may leave [-1, 1]; codecs clip to it. Silence gets no
        noise, because that is measured against the signal.

    Raises
    ------
    AudioError
        If babble has no talkers that are to be heard.
    """
    kind, level = degradation.kind, degradation.level
    if kind == "noise":
        noise = rng.standard_normal(len(waveform), dtype=np.float32)
        return add_noise(waveform, noise, level)
    if kind == "babble":
        return add_noise(waveform, mix_babble(talkers, len(waveform), rng), level)
    if kind in ("g711a", "g711u"):
        return send_by_telephone(waveform, "A" if kind == "g711a" else "mu")
    if kind == "opus":
        return send_by_opus(waveform, level)
    if kind == "clipping":
        limit = np.float32(level * np.abs(waveform).max())
        clipped: np.ndarray = np.clip(waveform, -limit, limit)
        return clipped
    if kind == "speed":
        return change_speed(waveform, level)
    return reverberate(waveform, room_response(level, rng))


def add_noise(waveform: np.ndarray, noise: np.ndarray, ratio: float) -> np.ndarray:
    """Add noise [shape=(n_samples,)] so that signal to noise is `ratio` dB over the utterance.

    Both levels are root mean squares over all samples, pauses included: in the words the ratio
    is a few dB better.
    """
    level = _rms(waveform) / max(_rms(noise), 1e-12) * 10 ** (-ratio / 20)
    return (waveform + noise * np.float32(level)).astype(np.float32)


def mix_babble(
    talkers: Sequence[np.ndarray], n_samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Voices at equal level, each from somewhere in it on and over again [shape=(n_samples,)].

    Raises
    ------
    AudioError
        If none of the talkers is to be heard.
    """
    mixed = np.zeros(n_samples, np.float32)
    for talker in talkers:
        first = int(rng.integers(len(talker)))  # drawn of a silent one too: the others keep theirs
        level = _rms(talker)
        if level > 0:
            mixed += np.resize(np.roll(talker, -first), n_samples) / np.float32(level)
    if not mixed.any():
        raise AudioError(
            f"None of {len(talkers)} talkers is to be heard, so there is no babble. Leave it out "
            f"of the degradations, or give a corpus whose train part is not silent."
        )
    return mixed


def send_by_telephone(waveform: np.ndarray, law: Law) -> np.ndarray:
    """Through 8 kHz and the 8-bit logarithmic samples of ITU-T G.711, and back to 16 kHz.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono.
    law : {'A', 'mu'}
        Of the two in the Recommendation.
    """
    narrow = resample(waveform, SAMPLING_RATE, TELEPHONE_RATE)
    return resample(compand(narrow, law), TELEPHONE_RATE, SAMPLING_RATE)[: len(waveform)]


def compand(waveform: np.ndarray, law: Law) -> np.ndarray:
    """What a waveform is after a coder and a decoder of ITU-T G.711 [shape=(n_samples,)].

    Every sample becomes the output of the decision interval that it lies in, by tables 1 and 2 of
    the Recommendation. libsndfile's coder is not used: it rounds to 12 or 13 bits first, which
    adds some 3 dB of noise to quiet speech.
    """
    code = np.arange(128)
    segment, step = code >> 4, code & 15
    if law == "A":  # whose first two segments have steps of one size
        shift, offset, full = np.maximum(segment - 1, 0), 0, 4096
        step = np.where(segment == 0, step - 16, step)
    else:
        shift, offset, full = segment, 33, 8192
    lowest = ((2 * step + 32) << shift) - offset
    outputs = ((2 * step + 33) << shift) - offset
    magnitude = np.abs(waveform, dtype=np.float64) * full
    place = np.maximum(np.searchsorted(lowest, magnitude, side="right") - 1, 0)
    decoded: np.ndarray = np.copysign(outputs[place] / full, waveform).astype(np.float32)
    return decoded


def send_by_opus(waveform: np.ndarray, kbits: float) -> np.ndarray:
    """Through Opus (RFC 6716) at 16 kHz with a variable rate of about `kbits` kbit/s."""
    return _decoded(encode_opus(waveform, SAMPLING_RATE, kbits))[: len(waveform)]


def room_response(rt60: float, rng: np.random.Generator) -> np.ndarray:
    """Impulse response of a synthetic room: direct sound, then noise that decays by 60 dB.

    Polack's model of diffuse reverberation [1]_: Gaussian noise under an exponential envelope.
    The direct sound and all that follows have the same energy, as some steps away from a
    speaker.

    Parameters
    ----------
    rt60 : float > 0
        Seconds until the reverberation has fallen by 60 dB.
    rng : np.random.Generator
        Of the noise.

    Returns
    -------
    np.ndarray [shape=(round(1.2 * rt60 * 16_000),)]
        float64; the first sample, 1, is the direct sound.

    References
    ----------
    .. [1] Polack, "La transmission de l'énergie sonore dans les salles", thesis, Université du
       Maine, 1988.
    """
    times = np.arange(round(1.2 * rt60 * SAMPLING_RATE)) / SAMPLING_RATE
    response = rng.standard_normal(len(times)) * 10 ** (-3 * times / rt60)
    response[0] = 0.0
    response /= np.sqrt(np.sum(response**2))
    response[0] = 1.0
    return response


def reverberate(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Speech in a room, cut where the utterance ends, as loud as before."""
    size = 1 << (len(waveform) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(waveform, size) * np.fft.rfft(response, size)
    heard = np.fft.irfft(spectrum, size)[: len(waveform)]
    return (heard * (_rms(waveform) / max(_rms(heard), 1e-12))).astype(np.float32)


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _decoded(file: bytes) -> np.ndarray:
    waveform: np.ndarray = soundfile.read(io.BytesIO(file), dtype="float32")[0]
    return waveform
