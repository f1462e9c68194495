"""Make the synthetic Korean corpus that ships with koser: espeak-ng voices acting emotions.

Every voice says every sentence under every label, so neither the text nor the voice
can give the label away; only the manner of speaking can. It follows the directions
that Scherer's review of acoustic studies [1]_ gives per emotion, weaker or stronger
from one utterance to the next, so that labels overlap. What comes out tests
software; it says nothing about how people sound.

Run ``python scripts/make_demo_corpus.py`` from the repository's root. The same espeak-ng
and the same seed give byte-identical files.

References
----------
.. [1] Scherer, "Vocal communication of emotion: A review of research paradigms",
   Speech Communication 40, 2003.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import soundfile
import soxr

from koser.demo import TABLE_NAME
from koser.labels import EMOTIONS

SAMPLING_RATE = 16_000  # Hz, of the files
FRAME = SAMPLING_RATE // 100  # 10 ms, the step of the level that silence is measured on
SILENCE = -40.0  # dB below the loudest frame
MARGIN = 0.03  # seconds kept on both sides of the speech
LOUDNESS = -33.0  # dB re full scale, RMS of a neutral utterance; quiet files are small files
SOFTNESS = -3.0  # dB per octave for every voice: espeak-ng is brighter than people are
PEAK = 0.9  # re full scale, what the loudest utterance may reach

COLUMNS = ("id", "path", "label", "speaker", "gender", "text")
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "src" / "koser" / "demo" / "corpus"

# Everyday and without emotion, so that no reading of them is odd.
SENTENCES = (
    "지금 집에 가고 있어요",
    "내일 아침에 올게요",
    "회의는 세 시예요",
    "친구가 문 앞에 있어요",
)


class SynthesisError(RuntimeError):
    """espeak-ng is missing or did not do what it was asked to."""


@dataclass(frozen=True)
class Voice:
    """One speaker of the corpus.

    Attributes
    ----------
    name : str
        The speaker's id.
    variant : str
        espeak-ng's voice variant: formants, breath and roughness.
    gender : str
        ``female`` or ``male``.
    pitch : float
        espeak-ng's pitch in [0, 99], on top of what the variant sets.
    rate : float
        Words per minute, as espeak-ng counts them.
    """

    name: str
    variant: str
    gender: str
    pitch: float
    rate: float


VOICES = (
    Voice("f1", "f1", "female", 42, 260),
    Voice("f2", "f2", "female", 50, 240),
    Voice("f3", "f3", "female", 38, 270),
    Voice("f4", "f4", "female", 55, 255),
    Voice("f5", "f5", "female", 46, 265),
    Voice("m1", "m1", "male", 50, 255),
    Voice("m2", "m3", "male", 40, 265),
    Voice("m3", "m4", "male", 58, 240),
    Voice("m4", "m6", "male", 46, 250),
    Voice("m5", "m7", "male", 54, 245),
)


@dataclass(frozen=True)
class Manner:
    """How an utterance departs from the voice's neutral reading.

    Attributes
    ----------
    pitch : float
        Points of espeak-ng's 0-99 scale; 10 are between 1.5 and 2 semitones.
    pitch_range : float
        Points of espeak-ng's scale, where 50 is the voice's own range.
    slope : float
        Points by which pitch climbs from the first word to the last.
    rate : float
        Natural logarithm of the factor on the speaking rate.
    pause : float
        Milliseconds of silence between words.
    level : float
        dB.
    tilt : float
        dB per octave on the spectrum, positive for a brighter voice.
    tremor, roughness : float
        Depth in [0, 1] of a slow and of a fast modulation of the amplitude.
    breath : float
        Amplitude of the noise in the voice, relative to the speech.
    """

    pitch: float = 0.0
    pitch_range: float = 0.0
    slope: float = 0.0
    rate: float = 0.0
    pause: float = 0.0
    level: float = 0.0
    tilt: float = 0.0
    tremor: float = 0.0
    roughness: float = 0.0
    breath: float = 0.0


# What a fully acted emotion adds to the neutral reading.
MANNERS = {
    "angry": Manner(8, 15, -12, 0.12, 0, 4, 4.0, 0.0, 0.6, 0.0),
    "disgust": Manner(-8, -10, -14, -0.18, 40, -1, 0.5, 0.0, 0.8, 0.05),
    "fear": Manner(14, -20, 6, 0.16, 0, -2, 1.0, 0.8, 0.0, 0.2),
    "happiness": Manner(14, 40, 4, 0.04, 0, 2, 1.5, 0.0, 0.0, 0.0),
    "neutral": Manner(),
    "sadness": Manner(-10, -25, -6, -0.22, 60, -4, -4.0, 0.15, 0.0, 0.1),
    "surprise": Manner(22, 35, 30, -0.06, 0, 2, 0.5, 0.0, 0.0, 0.1),
}
# Standard deviation between readings of one emotion by one voice. The level's is large
# because recordings differ in gain: loudness must not be what gives the label away.
SPREAD = Manner(4, 8, 6, 0.05, 12, 3, 0.6, 0.06, 0.06, 0.03)
INTENSITY = (0.55, 1.2)  # an emotion is acted between half and more than fully


def draw_manner(label: str, rng: np.random.Generator) -> Manner:
    """One reading of `label`: its mean manner, of random intensity, with random deviations."""
    mean, spread = np.array(astuple(MANNERS[label])), np.array(astuple(SPREAD))
    drawn = rng.uniform(*INTENSITY) * mean + spread * rng.standard_normal(len(mean))
    return Manner(*(float(value) for value in drawn))


def markup(text: str, voice: Voice, manner: Manner) -> str:
    """`text` as SSML that gives each word its pitch, and the words their range and pauses."""
    words = text.split()
    climb = np.linspace(-0.5, 0.5, len(words)) * manner.slope
    pitches = np.clip(voice.pitch + manner.pitch + climb, 0, 99)
    pitch_range = np.clip(50 + manner.pitch_range, 0, 99)
    gap = f'<break time="{manner.pause:.0f}ms"/> ' if manner.pause >= 1 else " "
    spoken = gap.join(
        f'<prosody pitch="{pitch:.0f}">{escape(word)}</prosody>'
        for word, pitch in zip(words, pitches, strict=True)
    )
    return f'<speak><prosody range="{pitch_range:.0f}">{spoken}</prosody></speak>'


def speak(executable: str, text: str, voice: Voice, manner: Manner) -> np.ndarray:
    """Let espeak-ng say `text`.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float64]
        The speech at `SAMPLING_RATE`, with silence around it.

    Raises
    ------
    SynthesisError
        If espeak-ng fails or says nothing.
    """
    words_per_minute = round(voice.rate * np.exp(manner.rate))
    # Half of espeak-ng's amplitude: at all of it some variants clip.
    command = [executable, "-m", "-z", "--stdout", "-a", "50", "-v", f"ko+{voice.variant}"]
    command += ["-s", str(words_per_minute), markup(text, voice, manner)]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode or not result.stdout:
        reason = result.stderr.decode("utf-8", errors="replace").strip()
        raise SynthesisError(f"espeak-ng exited with {result.returncode}: {reason or 'no sound'}.")
    samples, sampling_rate = soundfile.read(io.BytesIO(result.stdout), dtype="float64")
    resampled: np.ndarray = soxr.resample(samples, sampling_rate, SAMPLING_RATE)
    return resampled


def colour(samples: np.ndarray, manner: Manner, rng: np.random.Generator) -> np.ndarray:
    """Give speech the voice quality of `manner`: breath, modulation and spectral tilt.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples,)]
        Speech at `SAMPLING_RATE`.
    manner : Manner
        Of which `breath`, `tremor`, `roughness` and `tilt` are used.
    rng : np.random.Generator
        Source of the noise and of the modulations' rates.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        The coloured speech.
    """
    time = np.arange(len(samples)) / SAMPLING_RATE
    window = np.hanning(2 * FRAME)
    envelope = np.sqrt(np.convolve(samples**2, window / window.sum(), mode="same").clip(0))
    breathy = samples + max(manner.breath, 0) * envelope * rng.standard_normal(len(samples))
    # A trembling voice wavers 5-8 times a second; 30-150 Hz is heard as roughness.
    for depth, rate in (
        (manner.tremor, rng.uniform(5, 8)),
        (manner.roughness, rng.uniform(50, 80)),
    ):
        wave = np.sin(2 * np.pi * (rate * time + rng.uniform()))
        breathy *= 1 - np.clip(depth, 0, 1) * (1 + wave) / 2
    spectrum = np.fft.rfft(breathy)
    frequency = np.fft.rfftfreq(len(breathy), 1 / SAMPLING_RATE)
    octaves = np.log2(np.clip(frequency, 125, None) / 1_000)
    return np.fft.irfft(spectrum * 10 ** ((SOFTNESS + manner.tilt) * octaves / 20), n=len(breathy))


def trim(samples: np.ndarray) -> np.ndarray:
    """Cut the silence before and after the speech, but for `MARGIN`.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples,)]
        Speech at `SAMPLING_RATE`, at least one frame long.
    """
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.mean(frames**2, axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (SILENCE / 10))
    margin = round(MARGIN * SAMPLING_RATE)
    return samples[max(loud[0] * FRAME - margin, 0) : (loud[-1] + 1) * FRAME + margin]


def to_pcm(samples: np.ndarray, level: float) -> np.ndarray:
    """Scale `samples` to 16 bits, `level` dB above `LOUDNESS` as far as `PEAK` allows."""
    rms = np.sqrt(np.mean(samples**2))
    gain = min(10 ** ((LOUDNESS + level) / 20) / rms, PEAK / np.abs(samples).max())
    pcm: np.ndarray = np.round(samples * gain * 32_767).astype(np.int16)
    return pcm


def make_corpus(folder: Path, seed: int) -> list[dict[str, str]]:
    """Write every utterance and the table that lists them into `folder`.

    Parameters
    ----------
    folder : Path
        Made if need be; files of the same names are overwritten.
    seed : int
        Each utterance draws from its own stream of it, so that a change to one
        voice, label or sentence leaves the other files as they are.

    Returns
    -------
    list[dict[str, str]]
        The table's rows, with the keys of `COLUMNS`.

    Raises
    ------
    SynthesisError
        If espeak-ng is missing or fails.
    """
    executable = shutil.which("espeak-ng")
    if executable is None:
        raise SynthesisError(
            "espeak-ng is not on the PATH, and it is what speaks. "
            "Install it (on Debian: apt-get install espeak-ng) and run again."
        )
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i_voice, voice in enumerate(VOICES):
        for i_label, label in enumerate(EMOTIONS):
            for i_text, text in enumerate(SENTENCES):
                rng = np.random.default_rng([seed, i_voice, i_label, i_text])
                manner = draw_manner(label, rng)
                speech = colour(speak(executable, text, voice, manner), manner, rng)
                utterance = f"{voice.name}_{label}_{i_text + 1:02d}"
                path = f"{utterance}.flac"
                pcm = to_pcm(trim(speech), manner.level)
                soundfile.write(folder / path, pcm, SAMPLING_RATE, compression_level=1.0)
                values = (utterance, path, label, voice.name, voice.gender, text)
                rows.append(dict(zip(COLUMNS, values, strict=True)))
    with (folder / TABLE_NAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the corpus was written, 1 when it could not be."""
    parser = argparse.ArgumentParser(
        description="Make koser's synthetic Korean demo corpus with espeak-ng.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="of the manner of every utterance")
    options = parser.parse_args(arguments)
    try:
        rows = make_corpus(options.out, options.seed)
    except (SynthesisError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum((options.out / row["path"]).stat().st_size for row in rows)
    print(f"{len(rows)} utterances, {size / 1e6:.2f} MB, in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
