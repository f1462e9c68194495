"""Sound that is made in memory is heard once, whoever asks, and as if it were never kept."""

import sqlite3

import numpy as np
import pytest

from fixtures.text import CREDULOUS, demo_speech
from koser.errors import StoreError
from koser.features.text.cache import CACHE_NAME
from koser.features.text.kept import KeptTranscriber
from koser.features.text.transcriber import Transcriber
from koser.features.text.whisper import WhisperFolder, WhisperOptions, find_whisper


@pytest.fixture
def folder(whisper_folder):
    return find_whisper(WhisperOptions(name=str(whisper_folder), **CREDULOUS))


@pytest.fixture(scope="module")
def speech():
    return demo_speech(4)


def texts(transcripts):
    return [(each.text, each.status, each.context) for each in transcripts]


def test_it_says_what_whisper_says_and_asks_it_once(folder, speech, tmp_path, monkeypatch):
    counts, original = [], Transcriber.transcribe

    def counted(self, waveforms):
        counts.append(len(waveforms))
        return original(self, waveforms)

    expected = Transcriber(folder.load(), "ko").transcribe(speech)
    monkeypatch.setattr(Transcriber, "transcribe", counted)
    kept = KeptTranscriber(folder, "ko", tmp_path)
    assert texts(kept.transcribe([*speech[:2], speech[0]])) == texts([*expected[:2], expected[0]])
    assert texts(kept.transcribe(speech[::-1])) == texts(expected[::-1])
    assert counts == [2, 2]
    monkeypatch.setattr(WhisperFolder, "load", pytest.fail)  # not even loaded
    assert KeptTranscriber(folder, "ko", tmp_path).transcribe(speech) == kept.transcribe(speech)
    assert KeptTranscriber(folder, "ko", tmp_path).transcribe([]) == []


def test_the_least_other_sound_and_another_language_are_heard_anew(folder, speech, tmp_path):
    kept, clip = KeptTranscriber(folder, "ko", tmp_path), speech[0]
    kept.transcribe([clip])
    other = clip.copy()
    other[0] = np.nextafter(clip[0], np.float32(1))
    kept.transcribe([other, clip[:-1]])
    KeptTranscriber(folder, "en", tmp_path).transcribe([clip])
    with sqlite3.connect(tmp_path / CACHE_NAME) as connection:
        assert connection.execute("SELECT count(*) FROM transcript").fetchone() == (4,)


def test_a_damaged_transcript_is_heard_anew_and_a_damaged_file_is_named(folder, speech, tmp_path):
    kept = KeptTranscriber(folder, "ko", tmp_path)
    expected = kept.transcribe(speech[:1])
    with sqlite3.connect(tmp_path / CACHE_NAME) as connection:
        connection.execute("UPDATE transcript SET text = 'what nobody said'")
    assert kept.transcribe(speech[:1]) == expected
    (tmp_path / CACHE_NAME).write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        kept.transcribe(speech[:1])
