from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixtures.speech import COPIES, SAMPLING_RATE, invent_speech
from koser.audio.fingerprint import (
    HOP_LENGTH,
    MAX_BIT_ERROR_RATE,
    MIN_FRAMES,
    RATE,
    SILENT,
    find_copies,
    fingerprint,
)
from koser.audio.reading import load
from koser.demo import corpus_folder

FRAME = HOP_LENGTH / RATE


@pytest.fixture(scope="module")
def crowd():
    return [fingerprint(invent_speech(seed), SAMPLING_RATE) for seed in range(100, 140)]


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_in_a_crowd_and_nothing_else_is(crowd, kind):
    for seed in range(6):
        original = invent_speech(seed)
        copy = fingerprint(*COPIES[kind](original))
        prints = [*crowd, fingerprint(original, SAMPLING_RATE), copy]
        pairs = [(found.first, found.second) for found in find_copies(prints)]
        assert pairs == [(len(crowd), len(crowd) + 1)], f"seed {seed}"


def test_no_two_of_two_hundred_utterances_of_the_demo_are_copies():
    prints = [
        fingerprint(load(path), SAMPLING_RATE) for path in sorted(corpus_folder().glob("*.flac"))
    ]
    assert len(prints) > 100
    assert find_copies(prints) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12_000), st.floats(0.02, 2.0), st.integers(0, 50))
@example(584, 1.0, 25)  # whose first equal words are those of a held sound
def test_the_lag_is_where_a_cut_copy_begins(n_cut, gain, seed):
    original = invent_speech(seed)
    cut = (gain * original[n_cut:]).astype(np.float32)
    (found,) = find_copies([fingerprint(each, SAMPLING_RATE) for each in (original, cut)])
    assert found.lag == pytest.approx(n_cut / SAMPLING_RATE, abs=FRAME)
    assert found.bit_error_rate < 0.15


def test_links_are_those_of_a_comparison_of_all_pairs_at_all_lags():
    """The index may miss nothing that is as near as copies are."""
    originals = [invent_speech(seed) for seed in range(8)]
    copies = [COPIES[kind](originals[number]) for number, kind in enumerate(list(COPIES)[:8])]
    prints = [fingerprint(each, SAMPLING_RATE) for each in originals]
    prints += [fingerprint(*copy) for copy in copies]
    expected = {
        pair
        for pair in combinations(range(16), 2)
        if _least_error(prints, *pair) <= MAX_BIT_ERROR_RATE
    }
    assert expected == {(number, number + 8) for number in range(8)}
    assert {(found.first, found.second) for found in find_copies(prints)} == expected


def _least_error(prints, first, second):
    a, b = prints[first][:, 0], prints[second][:, 0]
    least = 1.0
    for lag in range(-len(b) + 1, len(a)):
        ours, theirs = a[max(lag, 0) :], b[max(-lag, 0) :]
        n = min(len(ours), len(theirs))
        is_speech = (ours[:n] != SILENT) & (theirs[:n] != SILENT)
        n_speech = min(np.count_nonzero(a), np.count_nonzero(b))
        if is_speech.sum() >= max(MIN_FRAMES, n_speech / 2):
            bits = np.unpackbits((ours[:n] ^ theirs[:n])[is_speech].view(np.uint8))
            least = min(least, bits.mean())
    return least


def test_twenty_copies_of_one_recording_are_all_joined(crowd):
    original = invent_speech(3)
    gains = np.linspace(0.1, 1.0, 20)
    copies = [fingerprint(gain * original[50 * n :], SAMPLING_RATE) for n, gain in enumerate(gains)]
    linked = {0}
    for found in sorted(find_copies([*copies, *crowd]), key=lambda each: each.second):
        assert found.second < 20
        linked |= {found.second} if found.first in linked else set()
    assert linked == set(range(20))


def test_silence_and_clips_that_are_too_short_have_no_copies():
    silence = np.zeros(32_000, np.float32)
    assert not fingerprint(silence, SAMPLING_RATE).any()
    assert len(fingerprint(invent_speech(0)[:4_000], SAMPLING_RATE)) == 0
    prints = [fingerprint(each, SAMPLING_RATE) for each in (silence, silence, silence[:100])]
    assert find_copies(prints) == []
    assert find_copies([]) == []


def test_steady_tones_of_different_pitch_are_no_copies():
    times = np.arange(32_000) / SAMPLING_RATE
    tones = [np.sin(2 * np.pi * pitch * times).astype(np.float32) for pitch in (310, 700, 1_500)]
    assert find_copies([fingerprint(tone, SAMPLING_RATE) for tone in tones]) == []


def test_a_threshold_below_that_of_copies_finds_none(monkeypatch):
    original = invent_speech(1)
    copy = fingerprint(*COPIES["vorbis"](original))
    prints = [fingerprint(original, SAMPLING_RATE), copy]
    assert len(find_copies(prints)) == 1
    monkeypatch.setattr("koser.audio.fingerprint.MAX_BIT_ERROR_RATE", 0.001)
    assert find_copies(prints) == []


def test_beside_each_word_stands_the_one_that_differs_in_a_single_bit():
    words = fingerprint(invent_speech(3), SAMPLING_RATE)
    is_speech = words[:, 0] != SILENT
    assert is_speech.any()
    np.testing.assert_array_equal(np.bitwise_count(words[:, 0] ^ words[:, 1]), is_speech)


def test_a_copy_of_which_every_word_has_its_uncertain_bit_wrong_is_found(crowd):
    original = fingerprint(invent_speech(3), SAMPLING_RATE)
    copy = original[:, ::-1].copy()
    assert not ((original[:, 0] == copy[:, 0]) & (copy[:, 0] != SILENT)).any()
    (found,) = find_copies([original, *crowd, copy])
    assert (found.first, found.second, found.lag) == (0, len(crowd) + 1, 0)
    assert found.bit_error_rate == pytest.approx(1 / 32)
