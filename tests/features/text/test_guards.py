import numpy as np
import pytest

from fixtures.text import demo_speech
from koser.audio.reading import SAMPLING_RATE
from koser.features.text.guards import (
    Hypothesis,
    Status,
    Transcript,
    compression_ratio,
    count_repeats,
    is_doubtful,
    judge,
    speech_seconds,
    speech_stretches,
)
from koser.features.text.whisper import WhisperOptions

OPTIONS = WhisperOptions()
GOOD = {"text": "a plain sentence", "n_tokens": 5, "avg_logprob": -0.3, "no_speech_prob": 0.1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Status.ok),
        ({"text": ""}, Status.no_speech),
        ({"avg_logprob": -1.2}, Status.low_confidence),
        ({"avg_logprob": -1.2, "no_speech_prob": 0.9}, Status.no_speech),
        ({"no_speech_prob": 0.9}, Status.ok),  # improbable silence: the words are sure
        ({"text": "so so so so " * 20}, Status.repetition),
        ({"text": "the same phrase. " * 3}, Status.repetition),
        ({"text": "the same phrase. " * 2}, Status.ok),
        ({"is_cut": True}, Status.repetition),
    ],
)
def test_each_failure_of_whisper_is_told_from_the_others(change, expected):
    hypothesis = Hypothesis(**{"is_cut": False, **GOOD, **change})
    assert judge(hypothesis, OPTIONS) is expected


def test_a_sentence_said_twice_is_heard_again_and_believed_then():
    twice = Hypothesis(**{**GOOD, "text": "Close the door. Close the door!", "is_cut": False})
    assert is_doubtful(twice, OPTIONS)
    assert judge(twice, OPTIONS) is Status.ok
    assert not is_doubtful(Hypothesis(**GOOD, is_cut=False), OPTIONS)


def test_only_a_transcript_that_tripped_no_guard_is_used():
    for status in Status:
        text = Transcript("words", status).usable_text
        assert text == ("words" if status is Status.ok else None)
    assert Transcript("", Status.ok).usable_text is None


def test_laughter_and_short_words_are_no_loop():
    for text in ("hahaha", "no no no no", "wait, wait, wait"):
        assert count_repeats(text) == 1
        assert compression_ratio(text) < OPTIONS.max_compression


def test_a_voice_is_told_from_silence_and_noise():
    rng = np.random.default_rng(0)
    (speech,) = demo_speech(1)
    assert speech_seconds(speech, SAMPLING_RATE) > 0.4
    assert speech_seconds(np.zeros(SAMPLING_RATE, np.float32), SAMPLING_RATE) == 0.0
    noise = rng.normal(0, 0.05, SAMPLING_RATE).astype(np.float32)
    assert speech_seconds(noise, SAMPLING_RATE) < OPTIONS.min_speech_seconds
    assert speech_seconds(np.zeros(0, np.float32), SAMPLING_RATE) == 0.0


def test_a_long_recording_is_cut_where_nobody_speaks():
    pause = np.zeros(2 * SAMPLING_RATE, np.float32)
    clips = demo_speech(6)
    recording = np.concatenate([part for clip in clips for part in (clip, pause)])
    pieces = speech_stretches(recording, SAMPLING_RATE, 5.0)
    assert len(pieces) >= 3
    assert all(len(piece) <= 5 * SAMPLING_RATE for piece in pieces)
    # What is loud is in some piece: pauses alone are dropped.
    loud = sum(float(np.square(piece).sum()) for piece in pieces)
    assert loud > 0.99 * float(np.square(recording).sum())
