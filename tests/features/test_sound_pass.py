import numpy as np
import pytest

from fixtures.speech import write_speech
from koser.audio.reading import load
from koser.audio.sound_facts import measure
from koser.features import sound_pass
from koser.features.extraction import Clip
from koser.features.sound_pass import listen


@pytest.fixture
def clips(tmp_path):
    return [
        Clip(str(write_speech(tmp_path / f"{number}.wav", number, seconds=1)))
        for number in range(6)
    ]


def as_tuples(heard):
    return [
        None if facts is None else (facts.digest, facts.level, facts.fingerprint.tolist())
        for facts in heard.facts
    ]


def test_facts_are_those_of_each_clip_and_a_segment_is_a_clip(clips, tmp_path):
    clips[2] = Clip(clips[2].path, 0.25, 0.75)
    heard = listen(clips, tmp_path / "store")
    for clip, facts in zip(clips, heard.facts, strict=True):
        expected = measure(load(clip.path, start=clip.start, end=clip.end), 16_000)
        assert facts.digest == expected.digest
        assert np.array_equal(facts.fingerprint, expected.fingerprint)
    assert (heard.n_new, heard.failures) == (6, {})


def test_a_second_audit_hears_nothing_again_and_a_moved_file_is_known(clips, tmp_path, monkeypatch):
    first = listen(clips, tmp_path / "store")
    (tmp_path / "0.wav").rename(tmp_path / "moved.wav")
    clips[0] = Clip(str(tmp_path / "moved.wav"))
    monkeypatch.setattr(sound_pass, "measure", None)  # whoever calls it, fails
    second = listen(clips, tmp_path / "store")
    assert second.n_new == 0
    assert as_tuples(second) == as_tuples(first)


def test_a_changed_file_is_heard_anew(clips, tmp_path):
    first = listen(clips, tmp_path / "store")
    write_speech(tmp_path / "3.wav", 99, seconds=1)
    second = listen(clips, tmp_path / "store")
    assert second.n_new == 1
    changed = [a != b for a, b in zip(as_tuples(first), as_tuples(second), strict=True)]
    assert changed == [False, False, False, True, False, False]


def test_workers_do_not_change_what_is_heard(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(sound_pass, "_WORTH_WORKERS", 1)
    monkeypatch.setattr(sound_pass, "_CHUNK", 2)
    shown = []
    one = listen(clips, tmp_path / "one", progress=lambda *done: shown.append(done))
    two = listen(clips, tmp_path / "two", n_workers=2)
    assert as_tuples(one) == as_tuples(two)
    assert shown == [(number, 6) for number in range(1, 7)]


def test_what_cannot_be_read_is_reported_by_its_row_and_the_rest_is_heard(clips, tmp_path):
    (tmp_path / "1.wav").write_bytes(b"no sound")
    clips[4] = Clip(str(tmp_path / "gone.wav"))
    heard = listen(clips, tmp_path / "store")
    assert sorted(heard.failures) == [1, 4]
    assert "gone.wav" in heard.failures[4]
    assert [facts is None for facts in heard.facts] == [n in (1, 4) for n in range(6)]
    assert heard.n_new == 4
