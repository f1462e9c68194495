import re
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from fixtures.voices import noise
from koser.features.prosody.extractor import extract_functionals
from koser.features.prosody.frames import FRAMES_PER_SECOND
from koser.features.prosody.functionals import (
    DESCRIPTORS,
    FUNCTIONALS,
    count_peaks,
    summarise,
)
from koser.features.prosody.pitch import Pitch, PitchOptions, true_runs

DOCS = Path(__file__).resolve().parents[3] / "docs" / "prosody.md"
NAMES = [each.name for each in FUNCTIONALS]


def pitch_of(hertz):
    hertz = np.asarray(hertz, float)
    return Pitch(hertz, tuple(true_runs(~np.isnan(hertz))))


def invented(n_frames=120, seed=0, voiced=True):
    """Descriptors out of the air, with gaps; and their functionals by name."""
    rng = np.random.default_rng(seed)
    hertz = rng.uniform(80, 300, n_frames)
    hertz[: n_frames // 4] = hertz[n_frames // 2 : 2 * n_frames // 3] = np.nan
    pitch = pitch_of(hertz if voiced else np.full(n_frames, np.nan))
    frames = {each.name: rng.gamma(2, 3, n_frames) for each in DESCRIPTORS}
    frames["flux"][0] = np.nan
    frames["f3"][rng.random(n_frames) < 0.1] = np.nan
    for name in frames:
        if name not in ("loudness", "flux") and not name.startswith(("alpha", "hamm", "slope")):
            frames[name] = np.where(pitch.is_voiced, frames[name], np.nan)
    frames["f0"] = pitch.semitones
    pairs = {name: rng.gamma(2, 1, 30 if voiced else 0) for name in ("jitter", "shimmer")}
    values = summarise(frames, pairs, pitch, -20.0)
    return frames, pairs, pitch, dict(zip(NAMES, values.tolist(), strict=True))


def test_statistics_are_scipys():
    frames, pairs, pitch, found = invented()
    voiced = pitch.is_voiced
    f3 = frames["f3"][voiced]
    f3 = f3[~np.isnan(f3)]
    expected = {
        "f0_mean": np.mean(12 * np.log2(pitch.hertz[voiced] / 27.5)),
        "f0_sd": scipy.stats.tstd(pitch.semitones[voiced]),
        "f0_p80": scipy.stats.scoreatpercentile(pitch.semitones[voiced], 80),
        "loudness_cv": scipy.stats.variation(frames["loudness"], ddof=1),
        "loudness_p20_p80": np.subtract(
            *(scipy.stats.scoreatpercentile(frames["loudness"], p) for p in (80, 20))
        ),
        "jitter_mean": pairs["jitter"].mean(),
        "shimmer_cv": scipy.stats.variation(pairs["shimmer"], ddof=1),
        "f3_cv": scipy.stats.variation(f3, ddof=1),
        "alpha_ratio_mean": frames["alpha_ratio"][voiced].mean(),
        "alpha_ratio_sd": scipy.stats.tstd(frames["alpha_ratio"][voiced]),
        "alpha_ratio_unvoiced_mean": frames["alpha_ratio"][~voiced].mean(),
        "flux_unvoiced_mean": np.nanmean(frames["flux"][~voiced]),
        "voiced_share": voiced.mean(),
        "level": -20.0,
        "no_voiced_frame": 0.0,
        "no_sound": 0.0,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


def test_slopes_are_those_of_the_lines():
    """Up by 12 semitones in half a second, down in a quarter; twice, the second half as steep."""
    up, down = round(0.5 * FRAMES_PER_SECOND), round(0.25 * FRAMES_PER_SECOND)
    first = np.concatenate([np.linspace(0, 12, up + 1), np.linspace(12, 0, down + 1)[1:]])
    hertz = np.concatenate([55 * 2 ** (first / 12), [np.nan] * 5, 55 * 2 ** (first / 24)])
    frames, pairs, _, _ = invented(len(hertz))
    pitch = pitch_of(hertz)
    frames["f0"] = pitch.semitones
    found = dict(zip(NAMES, summarise(frames, pairs, pitch, 0.0).tolist(), strict=True))
    rises = np.array([12, 6]) / (up / FRAMES_PER_SECOND)
    falls = np.array([12, 6]) / (down / FRAMES_PER_SECOND)
    # Smoothing over three frames takes a little off both ends of a stretch.
    assert found["f0_rise_mean"] == pytest.approx(rises.mean(), rel=0.1)
    assert found["f0_fall_mean"] == pytest.approx(falls.mean(), rel=0.1)
    assert found["f0_rise_sd"] == pytest.approx(rises.std(ddof=1), rel=0.1)
    assert found["f0_fall_sd"] == pytest.approx(falls.std(ddof=1), rel=0.1)


@hypothesis.given(
    steps=st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=1, max_size=80),
    height=st.floats(0.5, 6),
)
def test_peaks_are_those_of_scipy(steps, height):
    contour = np.cumsum(steps)
    # What no rounding decides.
    hypothesis.assume(np.abs(np.subtract.outer(contour, contour) - height).min() > 1e-6)
    # Of two peaks as high as each other scipy measures neither down to the valley between them.
    highest = np.sort(contour[scipy.signal.find_peaks(contour)[0]])
    hypothesis.assume((np.diff(highest) > 1e-6).all())
    expected, _ = scipy.signal.find_peaks(contour, prominence=height)
    assert count_peaks(contour, height) == len(expected)


def test_two_peaks_as_high_as_each_other_are_two_where_the_valley_is_deep_enough():
    contour = np.array([0.0, 3.0, 1.5, 3.0, 0.0])
    assert [count_peaks(contour, height) for height in (1.4, 1.6)] == [2, 1]


def test_syllables_are_counted():
    """Noise that swells four times a second for three seconds, after a second of murmur."""
    times = np.arange(48_000) / 16_000
    swelling = noise(3.0) * (1.05 - np.cos(2 * np.pi * 4 * times))
    clip = np.concatenate([0.01 * noise(1.0), swelling])
    values = extract_functionals(clip, PitchOptions())
    assert values[NAMES.index("loudness_peaks")] * 4.0 == pytest.approx(12, abs=0.1)


def test_rhythm_of_known_segments():
    hertz = np.full(100, np.nan)
    hertz[10:30] = hertz[40:50] = hertz[90:100] = 100.0
    frames, pairs, _, _ = invented(100)
    frames["f0"] = pitch_of(hertz).semitones
    values = summarise(frames, pairs, pitch_of(hertz), 0.0)
    found = dict(zip(NAMES, values.tolist(), strict=True))
    voiced, unvoiced = np.array([20, 10, 10]) * 0.016, np.array([10, 10, 40]) * 0.016
    assert found["voiced_segments"] == pytest.approx(3 / 1.6)
    assert found["voiced_length_mean"] == pytest.approx(voiced.mean())
    assert found["voiced_length_sd"] == pytest.approx(voiced.std(ddof=1))
    assert found["unvoiced_length_mean"] == pytest.approx(unvoiced.mean())
    assert found["unvoiced_length_sd"] == pytest.approx(unvoiced.std(ddof=1))


def test_without_a_voice_exactly_what_needs_one_is_undefined():
    _, _, _, found = invented(voiced=False)
    undefined = {name for name, value in found.items() if np.isnan(value)}
    needing = {
        name
        for name, definition in ((each.name, each.definition) for each in FUNCTIONALS)
        if ", voiced frames" in definition
        or name.startswith(("jitter", "shimmer", "voiced_length"))
    }
    assert undefined == needing | {"unvoiced_length_sd"}  # of one segment
    assert found["no_voiced_frame"] == 1
    assert found["voiced_segments"] == found["voiced_share"] == 0


def test_a_spread_of_one_value_is_undefined():
    frames, pairs, _, _ = invented(20)
    hertz = np.full(20, np.nan)
    hertz[7] = 100.0
    pitch = pitch_of(hertz)
    frames["f0"] = pitch.semitones
    frames["hnr"][7] = 10.0
    found = dict(zip(NAMES, summarise(frames, pairs, pitch, 0.0).tolist(), strict=True))
    assert found["f0_mean"] == found["f0_p50"] == pytest.approx(12 * np.log2(100 / 27.5))
    assert np.isnan([found[f"f0_{each}"] for each in ("sd", "rise_mean", "fall_sd")]).all()
    assert found["hnr_mean"] == 10
    assert np.isnan(found["hnr_sd"])


def test_names_are_unique_and_everything_is_said_of_each():
    assert len(set(NAMES)) == len(NAMES)
    for each in FUNCTIONALS:
        assert re.fullmatch(r"[a-z0-9_]+", each.name)
        assert each.unit
        assert each.definition
        assert each.source


def test_the_documentation_lists_them_all():
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DOCS.read_text("utf-8"), re.M
    )
    assert rows == [(e.name, e.unit, e.definition, e.source) for e in FUNCTIONALS]
