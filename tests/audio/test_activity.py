"""Speech found in pieces against speech found by definition; the detector against its makers'."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koser.audio.activity import (
    FRAME_LENGTH,
    ActivityOptions,
    SpeechFrames,
    SpeechRegions,
    find_speech,
)
from koser.audio.reading import SAMPLING_RATE, load
from koser.config import resolve_config
from koser.demo import corpus_folder
from koser.errors import ConfigError

# f1_angry_01.flac between half seconds of silence, frame by frame through the other model of
# the package silero-vad 6.2.3, silero_vad_16k_op15.onnx, which keeps its state as its input.
SILERO_SCORES = [
    *(0.0017, 0.0069, 0.0089, 0.0079, 0.0059, 0.006, 0.0059, 0.0056, 0.0054, 0.0052, 0.005),
    *(0.0049, 0.0047, 0.0046, 0.0044, 0.0043, 0.0551, 0.0907, 0.959, 0.7295, 0.9681, 0.9992),
    *(0.9998, 0.9996, 0.9996, 0.0175, 0.5165, 0.922, 0.9982, 0.4783, 0.9732, 0.9985, 0.3816),
    *(0.989, 0.9997, 0.9946, 0.9996, 0.9998, 0.9997, 0.9998, 1.0, 0.9999, 1.0, 1.0, 1.0, 1.0),
    *(1.0, 1.0, 0.7947, 0.8975, 0.55, 0.1824, 0.0906, 0.0525, 0.0405, 0.0333, 0.0281, 0.0245),
    *(0.0224, 0.0211, 0.0204, 0.0197, 0.0191, 0.0182),
]


@pytest.fixture(scope="module")
def sentences():
    """Four sentences with a second of faint noise around each, and where each of them is."""
    rng = np.random.default_rng(0)
    pieces, places, position = [], [], 0
    for path in sorted(corpus_folder().glob("*.flac"))[::70]:
        noise = rng.normal(scale=1e-4, size=SAMPLING_RATE).astype(np.float32)
        sentence = load(path)
        pieces += [noise, sentence]
        places.append((position + len(noise), position + len(noise) + len(sentence)))
        position = places[-1][1]
    return np.concatenate(pieces), places


def pieces_of(waveform, cuts):
    return np.split(waveform, sorted(min(cut, len(waveform)) for cut in cuts))


def test_scores_are_those_of_the_makers_streaming_model():
    silence = np.zeros(SAMPLING_RATE // 2, np.float32)
    clip = np.concatenate([silence, load(corpus_folder() / "f1_angry_01.flac"), silence])
    scores = SpeechFrames().feed(clip)
    assert len(scores) == len(clip) // FRAME_LENGTH == len(SILERO_SCORES)
    np.testing.assert_allclose(scores, SILERO_SCORES, atol=6e-5)  # they have four decimals


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 120_000), max_size=30))
def test_scores_and_regions_do_not_depend_on_how_sound_is_cut(sentences, cuts):
    waveform = sentences[0][:120_001]
    whole = SpeechFrames()
    expected = np.concatenate([whole.feed(waveform), whole.finish()])
    frames, regions, extents = SpeechFrames(), SpeechRegions(ActivityOptions()), []
    scores = []
    for piece in pieces_of(waveform, cuts):
        scores.append(frames.feed(piece))
        extents += regions.feed(piece)
    scores.append(frames.finish())
    extents += regions.finish()
    np.testing.assert_allclose(np.concatenate(scores), expected, atol=1e-6)
    closed = [(each.start, each.end) for each in extents if each.is_closed]
    assert closed == find_speech(waveform, ActivityOptions())


def test_speech_is_found_where_it_is(sentences):
    waveform, places = sentences
    found = find_speech(waveform, ActivityOptions())
    assert len(found) == len(places)
    for (start, end), (true_start, true_end) in zip(found, places, strict=True):
        # Clips have some silence of their own at both ends.
        assert true_start - 0.15 * SAMPLING_RATE < start < true_start + 0.35 * SAMPLING_RATE
        assert true_end - 0.6 * SAMPLING_RATE < end < true_end + 0.3 * SAMPLING_RATE


@pytest.mark.parametrize("kind", ["silence", "noise", "tone"])
def test_what_is_no_speech_is_none(kind):
    times = np.arange(5 * SAMPLING_RATE) / SAMPLING_RATE
    noise = np.random.default_rng(0).normal(scale=0.05, size=len(times))
    sounds = {"silence": 0 * times, "noise": noise, "tone": 0.3 * np.sin(2 * np.pi * 440 * times)}
    assert find_speech(sounds[kind].astype(np.float32), ActivityOptions()) == []


class Given:
    """Scores that are given instead of heard, one per frame."""

    def __init__(self, scores):
        self._scores, self._n_fed, self._n_scored = scores, 0, 0

    def feed(self, samples):
        self._n_fed += len(samples)
        return self._up_to(self._n_fed // FRAME_LENGTH)

    def finish(self):
        return self._up_to(-(-self._n_fed // FRAME_LENGTH))

    def _up_to(self, n_frames):
        first, self._n_scored = self._n_scored, n_frames
        return np.array(self._scores[first:n_frames])


def regions_by_definition(scores, n_samples, options):
    """Runs of frames that may be speech, joined over short silences, kept if long, padded."""
    is_speech, runs = False, []
    for place, score in enumerate(scores):
        is_speech = score >= (options.threshold - 0.15 if is_speech else options.threshold)
        # A region goes on through frames of its silence that score too low to begin one.
        if not is_speech and runs and place < runs[-1][1] + hangover_frames(options):
            is_speech = score >= options.threshold - 0.15
        if is_speech:
            if runs and place < runs[-1][1] + hangover_frames(options):
                runs[-1][1] = place + 1
            else:
                runs.append([place, place + 1])
    padding = round(options.padding * SAMPLING_RATE)
    return [
        (max(0, first * FRAME_LENGTH - padding), min(last * FRAME_LENGTH + padding, n_samples))
        for first, last in runs
        if (last - first) * FRAME_LENGTH >= round(options.min_speech * SAMPLING_RATE)
    ]


def hangover_frames(options):
    """Silent frames that end a region, at least one."""
    return max(1, -(-round(options.hangover * SAMPLING_RATE) // FRAME_LENGTH))


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.3, 0.34, 0.36, 0.49, 0.5, 0.9]), max_size=60),
    n_extra=st.integers(0, FRAME_LENGTH - 1),
    hangover=st.sampled_from([0.0, 0.064, 0.1, 0.4]),
    min_speech=st.sampled_from([0.0, 0.1, 0.25]),
    cuts=st.lists(st.integers(0, 60 * FRAME_LENGTH), max_size=6),
)
def test_regions_are_those_of_the_definition(scores, n_extra, hangover, min_speech, cuts):
    options = ActivityOptions(hangover=hangover, min_speech=min_speech, padding=hangover / 2)
    n_samples = len(scores) * FRAME_LENGTH + (n_extra - FRAME_LENGTH if scores and n_extra else 0)
    regions = SpeechRegions(options, Given(scores))
    extents = []
    for piece in pieces_of(np.zeros(n_samples, np.float32), cuts):
        extents.append(regions.feed(piece))
    extents.append(regions.finish())
    told = list(itertools.chain.from_iterable(extents))
    closed = [(each.start, each.end) for each in told if each.is_closed]
    assert closed == regions_by_definition(scores, n_samples, options)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(closed))
    # What is told of a region that goes on never goes back.
    for one, other in itertools.pairwise(told):
        assert one.start < other.start or one.end <= other.end


def test_everything_is_speech_where_the_detector_is_off():
    options = ActivityOptions(kind="off")
    assert find_speech(np.zeros(1000, np.float32), options) == [(0, 1000)]
    assert find_speech(np.zeros(0, np.float32), options) == []


def test_padding_that_would_make_neighbours_overlap_is_refused():
    with pytest.raises(ConfigError, match="Lower padding to half of hangover"):
        resolve_config(ActivityOptions, overrides=["padding=0.3"])
