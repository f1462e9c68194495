import os
import unicodedata

import pytest

from fixtures.aihub263 import wav_bytes
from koser.audio.listing import audio_files
from koser.data.corpora.collecting import Collector, decode, have_same_bytes, path_on_disk
from koser.errors import CorpusError, ManifestError


@pytest.fixture
def collector(tmp_path):
    return Collector("test", tmp_path, corpus="invented", language="ko")


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "one.wav"
    path.write_bytes(wav_bytes(1, seconds=0.5))
    return str(path)


def manifest_of(collector):
    return collector.manifest(label_policy="test", grouping=None)


def test_files_are_sorted_whatever_their_case_and_hidden_ones_passed_over(tmp_path):
    for name in ("b/2.WAV", "a/1.wav", "a/._1.wav", ".trash/3.wav", "a/notes.txt", "c.flac"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    names = [path.relative_to(tmp_path).as_posix() for path in audio_files(tmp_path)]
    assert names == ["a/1.wav", "b/2.WAV", "c.flac"]


def test_links_to_folders_are_followed_but_never_in_circles(tmp_path):
    for name in ("corpus", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.wav").write_bytes(b"")
    (tmp_path / "corpus" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "self").symlink_to(tmp_path / "corpus")
    names = [path.relative_to(tmp_path).as_posix() for path in audio_files(tmp_path / "corpus")]
    assert names == ["corpus/1.wav", "corpus/more/1.wav"]


def test_a_dangling_link_is_listed_and_then_reported_not_lost(tmp_path, collector, wav):
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    for path in audio_files(tmp_path):
        collector.add(id=path.stem, path=str(path), label="fear")
    manifest = manifest_of(collector)
    assert manifest.table["id"].to_list() == ["one"]
    assert [(row.source, row.reason) for row in manifest.provenance.left_out] == [
        ("gone", "unreadable audio")
    ]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CorpusError, match=r"Permission denied.*make the folder readable"):
        audio_files(tmp_path)


def test_a_file_given_for_a_folder_is_refused(wav, tmp_path):
    with pytest.raises(CorpusError, match="No folder at"):
        audio_files(tmp_path / "one.wav")


def test_texts_become_nfc_and_the_path_stays(collector, tmp_path):
    name = unicodedata.normalize("NFD", "슬픔")
    path = tmp_path / f"{name}.wav"
    path.write_bytes(wav_bytes(1))
    collector.add(id=name, path=str(path), label="sadness", text=name)
    row = manifest_of(collector).table.row(0, named=True)
    assert row["id"] == row["text"] == "슬픔"
    assert row["path"] == str(path)


def test_relative_paths_become_absolute(collector, wav, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collector.add(id="1", path="one.wav", label="fear")
    assert manifest_of(collector).table["path"][0] == wav


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({}, (None, None, 0.5)),
        ({"start": 0.1, "end": 0.3}, (0.1, 0.3, 0.2)),
        ({"start": 0.1}, (0.1, 0.5, 0.4)),
        ({"end": 0.1}, (0.0, 0.1, 0.1)),
        ({"start": 0.1, "end": 0.5004}, (0.1, 0.5, 0.4)),
    ],
)
def test_a_segment_lasts_from_its_start_to_its_end(collector, wav, times, expected):
    collector.add(id="1", path=wav, label="fear", **times)
    manifest = manifest_of(collector)
    row = manifest.table.select("start", "end", "duration").row(0)
    assert row == tuple(value if value is None else pytest.approx(value) for value in expected)
    assert manifest.provenance.notes == ()


def test_a_segment_past_the_end_of_its_file_is_cut_there_and_noted(collector, wav):
    collector.add(id="1", path=wav, label="fear", start=0.2, end=0.9)
    manifest = manifest_of(collector)
    assert manifest.table["end"][0] == pytest.approx(0.5)
    assert manifest.provenance.notes == (
        "1 segments reach past the end of their file and end there.",
    )


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.9), (0.3, 0.3), (0.3, 0.2), (-0.1, 0.2)])
def test_a_segment_that_is_not_in_the_file_is_left_out(collector, wav, start, end):
    collector.add(id="kept", path=wav, label="fear")
    collector.add(id="1", path=wav, label="fear", start=start, end=end)
    (row,) = manifest_of(collector).provenance.left_out
    assert (row.source, row.reason) == ("1", "no such segment in the audio")


def test_an_unknown_field_of_an_adapter_is_refused(collector, wav):
    collector.add(id="1", path=wav, label="fear", emotion="fear")
    with pytest.raises(ManifestError, match=r"No such columns in a manifest: \['emotion'\]"):
        manifest_of(collector)


def test_a_corpus_without_any_usable_row_says_why(collector, tmp_path):
    collector.leave_out("1", "no audio file")
    collector.leave_out("2", "no audio file")
    with pytest.raises(CorpusError, match=r"2 rows read: 2 × no audio file.*'test' corpus"):
        manifest_of(collector)


def test_bytes_are_compared_not_only_sizes(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path, content in zip(paths, (b"same", b"same", b"ssme"), strict=True):
        path.write_bytes(content)
        os.utime(path, (0, 0))
    assert have_same_bytes(paths[:2])
    assert not have_same_bytes(paths)


def test_a_path_is_found_under_either_form_of_hangul(tmp_path):
    decomposed = tmp_path / unicodedata.normalize("NFD", "감정.wav")
    decomposed.write_bytes(b"")
    assert path_on_disk(tmp_path / unicodedata.normalize("NFC", "감정.wav")) == decomposed
    assert path_on_disk(tmp_path / "기쁨.wav") is None


@pytest.mark.parametrize("folder", ["NFC", "NFD"])
@pytest.mark.parametrize("file", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_each_folder_of_a_path_may_be_spelt_in_its_own_way(tmp_path, folder, file, asked):
    root = tmp_path / unicodedata.normalize("NFC", "데이터") / unicodedata.normalize(folder, "통화")
    root.mkdir(parents=True)
    sound = root / unicodedata.normalize(file, "감정.wav")
    sound.write_bytes(b"")
    below = unicodedata.normalize(asked, "통화/감정.wav")
    assert path_on_disk(tmp_path / unicodedata.normalize("NFC", "데이터") / below) == sound
    assert path_on_disk(tmp_path / unicodedata.normalize(asked, "데이터/통화/감정.wav")) == sound


def test_bytes_of_neither_encoding_are_refused_by_name():
    with pytest.raises(CorpusError, match=r"'x\.csv' is neither UTF-8 nor cp949"):
        decode(b"\xff\xff", "x.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
def test_a_bom_before_any_encoding_is_no_text(encoding):
    assert decode(b"\xef\xbb\xbf" + "감정,wav_id".encode(encoding), "x.csv") == "감정,wav_id"
