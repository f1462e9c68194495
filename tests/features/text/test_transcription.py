import sqlite3

import numpy as np
import pytest
import soundfile

from fixtures.text import CREDULOUS, demo_speech
from koser.audio.reading import SAMPLING_RATE, load_clip
from koser.features.extraction import Clip
from koser.features.text import transcription
from koser.features.text.cache import CACHE_NAME, TranscriptCache
from koser.features.text.guards import Status
from koser.features.text.kept import KeptTranscriber
from koser.features.text.transcriber import Transcriber
from koser.features.text.transcription import Spoken, spoken_languages, transcribe_clips
from koser.features.text.whisper import WhisperFolder, WhisperOptions, find_whisper


@pytest.fixture
def options(whisper_folder):
    return WhisperOptions(name=str(whisper_folder), **CREDULOUS)


@pytest.fixture
def spoken(tmp_path):
    """Six clips of synthetic speech, the last one a copy of the first."""
    clips = demo_speech(5)
    paths = [tmp_path / f"{place}.wav" for place in range(6)]
    for path, clip in zip(paths, [*clips, clips[0]], strict=True):
        soundfile.write(path, clip, SAMPLING_RATE, "PCM_16")
    durations = [len(clip) / SAMPLING_RATE for clip in [*clips, clips[0]]]
    return Spoken([Clip(str(path)) for path in paths], durations, ["ko"] * 6)


@pytest.fixture
def heard(monkeypatch):
    """How many clips each call of Whisper has been given."""
    counts = []
    original = Transcriber.transcribe

    def counted(self, waveforms):
        counts.append(len(waveforms))
        return original(self, waveforms)

    monkeypatch.setattr(Transcriber, "transcribe", counted)
    return counts


def test_every_clip_is_transcribed_once_and_then_found(
    spoken, options, tmp_path, heard, monkeypatch
):
    first = transcribe_clips(spoken, options, tmp_path / "store")
    assert (sum(heard), first.n_new) == (5, 5)  # the copy is the same sound
    assert first.transcripts[0] == first.transcripts[5]
    assert first.counts() == {"ok": 6}
    monkeypatch.setattr(WhisperFolder, "load", pytest.fail)  # not even loaded
    progress = []
    again = transcribe_clips(
        spoken, options, tmp_path / "store", progress=lambda *done: progress.append(done)
    )
    assert (again.transcripts, again.n_new) == (first.transcripts, 0)
    assert progress == [(6, 6)]


def test_what_was_heard_of_files_is_not_heard_again_of_their_samples(
    spoken, options, tmp_path, heard
):
    """As when a corpus is learnt from, and a run's models then hear its clean sound."""
    found = transcribe_clips(spoken, options, tmp_path / "store")
    heard.clear()
    kept = KeptTranscriber(find_whisper(options), "ko", tmp_path / "store")
    assert kept.transcribe([load_clip(clip) for clip in spoken.clips]) == list(found.transcripts)
    assert heard == []
    kept.transcribe([load_clip(spoken.clips[0])[1:]])
    assert heard == [1]


def test_transcripts_are_those_of_each_clip_alone(spoken, options, tmp_path):
    found = transcribe_clips(spoken, options, tmp_path / "store")
    transcriber = Transcriber(find_whisper(options).load(), "ko")
    for clip, transcript in zip(demo_speech(5), found.transcripts, strict=False):
        # 16 bits of the file, not the array
        pcm = np.round(clip * 32768).clip(-32768, 32767).astype(np.float32) / 32768
        assert transcript.text == transcriber.transcribe([pcm])[0].text


def test_other_decoding_and_other_languages_are_transcribed_anew(spoken, options, tmp_path, heard):
    transcribe_clips(spoken, options, tmp_path / "store")
    greedy = options.model_copy(update={"beam_size": 1})
    assert transcribe_clips(spoken, greedy, tmp_path / "store").n_new == 5
    mixed = Spoken(spoken.clips, spoken.durations, ["ko", "en", "ko", "en", "ko", "ko"])
    heard.clear()
    assert transcribe_clips(mixed, options, tmp_path / "store").n_new == 2
    assert sum(heard) == 2
    moved = options.model_copy(update={"batch_seconds": 1.0, "n_threads": 1})
    assert transcribe_clips(mixed, moved, tmp_path / "store").n_new == 0


def test_the_language_is_the_options_then_the_manifests_then_korean(options):
    assert spoken_languages(options, ["en", None]) == ["en", "ko"]
    german = options.model_copy(update={"language": "de"})
    assert spoken_languages(german, ["en", None]) == ["de", "de"]


def test_what_fails_is_recorded_and_tried_again(spoken, options, tmp_path, caplog):
    good = (tmp_path / "2.wav").read_bytes()
    (tmp_path / "2.wav").write_bytes(b"no sound")
    (tmp_path / "3.wav").rename(tmp_path / "away.wav")
    first = transcribe_clips(spoken, options, tmp_path / "store")
    assert [each.status for each in first.transcripts].count(Status.failed) == 2
    assert first.texts[2] is None
    assert "2.wav" in first.transcripts[2].error
    assert "2 of 6 clips could not be transcribed" in caplog.text
    cache = TranscriptCache(tmp_path / "store" / CACHE_NAME, find_whisper(options).describe("ko"))
    assert {name.rsplit("/", 1)[1] for name in cache.failures()} == {"2.wav", "3.wav"}
    with sqlite3.connect(tmp_path / "store" / CACHE_NAME) as connection:
        # each by its file and by its samples
        assert connection.execute("SELECT count(*) FROM transcript").fetchone() == (2 * 3,)
    (tmp_path / "2.wav").write_bytes(good)
    (tmp_path / "away.wav").rename(tmp_path / "3.wav")
    again = transcribe_clips(spoken, options, tmp_path / "store")
    assert (again.n_new, again.counts()) == (2, {"ok": 6})
    assert cache.failures() == {}


def test_a_clip_that_whisper_fails_on_does_not_fail_its_batch(
    spoken, options, tmp_path, monkeypatch
):
    bad = len(demo_speech(5)[3])
    original = Transcriber._mel

    def mel(self, piece):
        if len(piece.waveform) == bad:
            raise RuntimeError("out of memory")
        return original(self, piece)

    monkeypatch.setattr(Transcriber, "_mel", mel)
    found = transcribe_clips(spoken, options, tmp_path / "store")
    assert [each.status for each in found.transcripts].count(Status.failed) == 1
    assert found.transcripts[3].error == "out of memory"
    assert found.transcripts[3].usable_text is None


def test_what_was_done_before_a_crash_is_kept(spoken, options, tmp_path, heard, monkeypatch):
    small = options.model_copy(update={"batch_seconds": 1.0})  # one clip a batch
    original = transcription._transcribed

    def crash(transcriber, readable):
        if len(heard) == 3:
            raise KeyboardInterrupt
        return original(transcriber, readable)

    monkeypatch.setattr(transcription, "_transcribed", crash)
    with pytest.raises(KeyboardInterrupt):
        transcribe_clips(spoken, small, tmp_path / "store")
    monkeypatch.setattr(transcription, "_transcribed", original)
    assert transcribe_clips(spoken, small, tmp_path / "store").n_new == 2
