"""A tiny Whisper transcribes synthetic speech.

What it says means nothing; how it is decoded does.
"""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from fixtures.text import CREDULOUS, demo_speech
from koser.audio.reading import SAMPLING_RATE
from koser.errors import EncoderError
from koser.features.text.guards import Status
from koser.features.text.transcriber import FULL_SECONDS, Transcriber
from koser.features.text.whisper import WhisperOptions, find_whisper, workers_for


@pytest.fixture(scope="module")
def speech():
    return demo_speech(10)


def transcriber(folder, language="ko", **options):
    chosen = WhisperOptions(name=str(folder), **{**CREDULOUS, **options})
    return Transcriber(find_whisper(chosen).load(), language)


def test_clips_of_other_sound_have_other_texts(whisper_folder, speech):
    found = transcriber(whisper_folder).transcribe(speech)
    assert [each.status for each in found] == [Status.ok] * len(speech)
    assert {each.context for each in found} == {"short"}
    assert len({each.text for each in found}) > len(speech) / 2


def test_a_transcript_does_not_depend_on_what_it_is_batched_with(whisper_folder, speech):
    whole = transcriber(whisper_folder)
    together = whole.transcribe(speech)
    # Another order, and batches of two.
    small = transcriber(whisper_folder, batch_seconds=8).transcribe(speech[::-1])[::-1]
    for clip, expected, other in zip(speech, together, small, strict=True):
        (alone,) = whole.transcribe([clip])
        for each in (alone, other):
            assert each.text == expected.text
            assert each.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-4)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_threads_change_nothing_but_how_many_batches_there_are_at_once(
    whisper_folder, speech, monkeypatch, n_threads
):
    made = transcriber(whisper_folder, n_threads=n_threads, context="full")
    sizes, original = [], made._decode_batch

    def count(pieces):
        sizes.append(len(pieces))
        return original(pieces)

    monkeypatch.setattr(made, "_decode_batch", count)
    found = made.transcribe(speech[:7])
    # 240 s hold 8 clips of 30 s.
    assert sorted(sizes) == ([7] if n_threads == 1 else [3, 4])
    alone = transcriber(whisper_folder, n_threads=1, context="full")
    for clip, each in zip(speech[:7], found, strict=True):
        (expected,) = alone.transcribe([clip])
        assert each.text == expected.text
        assert each.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-4)


def test_many_cores_are_shared_out_in_fours():
    assert [workers_for(n) for n in (1, 2, 4, 7, 8, 16)] == [1, 2, 2, 2, 2, 4]


def test_full_context_says_what_transformers_says(whisper_folders, speech):
    original, converted = whisper_folders
    model = WhisperForConditionalGeneration.from_pretrained(original, dtype=torch.float32).eval()
    front_end = WhisperFeatureExtractor.from_pretrained(original)
    tokenizer = AutoTokenizer.from_pretrained(original)
    prompt = tokenizer.convert_tokens_to_ids(
        ["<|startoftranscript|>", "<|ko|>", "<|transcribe|>", "<|notimestamps|>"]
    )
    ours = transcriber(converted, context="full", beam_size=1).transcribe(speech[:4])
    for clip, transcript in zip(speech[:4], ours, strict=True):
        mel = front_end(clip, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_features
        tokens, scores = greedy(model, mel, prompt)
        assert transcript.text == tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert transcript.avg_logprob == pytest.approx(np.mean(scores), abs=1e-3)
        assert transcript.context == "full"


@torch.inference_mode()
def greedy(model, mel, prompt):
    """Tokens of a text and log-probabilities, the end's included, one step after the other."""
    settings = model.generation_config
    tokens, scores = [], []
    while not tokens or tokens[-1] != settings.eos_token_id:
        ids = torch.tensor([prompt + tokens])
        logits = model(input_features=mel, decoder_input_ids=ids).logits[0, -1]
        logits[settings.suppress_tokens] = -torch.inf
        if not tokens:
            logits[settings.begin_suppress_tokens] = -torch.inf
        tokens.append(int(logits.argmax()))
        scores.append(float(logits.log_softmax(0).max()))
    return tokens[:-1], scores


def test_short_context_hears_less_than_thirty_seconds(whisper_folder, speech, monkeypatch):
    seen = []
    made = transcriber(whisper_folder)
    original = made._mel
    monkeypatch.setattr(
        made, "_mel", lambda piece: seen.append(original(piece).shape) or original(piece)
    )
    made.transcribe(speech[:3])
    expected = [-(-len(clip) // SAMPLING_RATE) + 3 for clip in speech[:3]]
    assert sorted(n_frames for _, n_frames in seen) == sorted(100 * each for each in expected)


def test_what_trips_a_guard_is_heard_again_in_full_context(whisper_folder, speech):
    full = transcriber(whisper_folder, context="full").transcribe(speech)
    short = transcriber(whisper_folder).transcribe(speech)
    limit = float(np.median([each.avg_logprob for each in short]))
    guarded = transcriber(whisper_folder, min_logprob=limit).transcribe(speech)
    assert {each.context for each in guarded} == {"short", "full"}
    for first, again, whole in zip(short, guarded, full, strict=True):
        expected = first if first.avg_logprob >= limit else whole
        assert (again.text, again.context) == (expected.text, expected.context)
        is_good = expected.avg_logprob >= limit
        assert again.status is (Status.ok if is_good else Status.low_confidence)


def test_what_trips_it_again_is_marked_and_not_used(whisper_folder, speech):
    for options, status in (
        ({"max_compression": 0.01}, Status.repetition),
        ({"min_logprob": -0.0001}, Status.low_confidence),
        ({"min_logprob": -0.0001, "max_no_speech": 0.0}, Status.no_speech),
        ({"max_tokens_per_second": 0.001}, Status.repetition),
    ):
        (found,) = transcriber(whisper_folder, **options).transcribe(speech[:1])
        assert (found.status, found.context) == (status, "full"), options
        assert found.text
        assert found.usable_text is None


def test_silence_is_not_even_decoded(whisper_folder, monkeypatch):
    made = transcriber(whisper_folder, min_speech_seconds=0.1)
    monkeypatch.setattr(made, "_decode_batch", pytest.fail)
    (found,) = made.transcribe([np.zeros(2 * SAMPLING_RATE, np.float32)])
    assert (found.status, found.text, found.avg_logprob) == (Status.no_speech, "", None)


def test_a_long_recording_is_transcribed_piece_by_piece(whisper_folder, speech):
    pause = np.zeros(SAMPLING_RATE, np.float32)
    pieces = [part for clip in speech * 4 for part in (clip, pause)]
    recording = np.concatenate(pieces)
    assert len(recording) > 2 * FULL_SECONDS * SAMPLING_RATE
    made = transcriber(whisper_folder)
    (found,) = made.transcribe([recording])
    (start,) = made.transcribe([recording[: 10 * SAMPLING_RATE]])
    assert found.status is Status.ok
    assert len(found.text.split()) > 2 * len(start.text.split())


def test_another_language_is_another_prompt(whisper_folder, speech):
    korean = transcriber(whisper_folder).transcribe(speech)
    english = transcriber(whisper_folder, "en").transcribe(speech)
    for one, other in zip(korean, english, strict=True):
        assert one.avg_logprob != pytest.approx(other.avg_logprob, abs=1e-4)


def test_a_language_that_whisper_does_not_know_is_refused(whisper_folder):
    with pytest.raises(
        EncoderError, match=r"has no token <\|xx\|>: it does not know the language 'xx'"
    ):
        transcriber(whisper_folder, "xx")
