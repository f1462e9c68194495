import unicodedata

import pytest

from fixtures.aihub263 import wav_bytes
from koser.data.corpora.folder import prepare
from koser.errors import ConfigError, CorpusError


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav_bytes(sum(name.encode())))


def test_folders_are_labels_at_any_depth_and_ids_are_relative_paths(tmp_path):
    write(tmp_path, "angry/F1/a.wav", "calm/b.wav", "angry/F2/a.wav")
    manifest = prepare(tmp_path)
    assert manifest.table.select("id", "label").rows() == [
        ("angry/F1/a", "angry"),
        ("angry/F2/a", "angry"),
        ("calm/b", "calm"),
    ]
    assert manifest.labels == ("angry", "calm")
    assert manifest.provenance.grouping is None
    assert manifest.table["corpus"][0] == tmp_path.name


def test_korean_folders_of_a_macos_archive_are_known_labels(tmp_path):
    folder = unicodedata.normalize("NFD", "슬픔")
    write(tmp_path, f"{folder}/a.wav")
    manifest = prepare(tmp_path)
    assert manifest.table.select("id", "label").row(0) == ("슬픔/a", "sadness")
    assert manifest.table["path"][0].endswith(f"{folder}/a.wav")


def test_the_corpus_is_named_the_same_however_its_folder_is_spelt(tmp_path):
    for form in ("NFC", "NFD"):
        root = tmp_path / form / unicodedata.normalize(form, "통화")
        write(root, "기쁨/a.wav")
        assert prepare(root).table["corpus"].to_list() == [unicodedata.normalize("NFC", "통화")]


def test_two_folders_of_one_label_are_noted(tmp_path):
    write(tmp_path, "sad/a.wav", "Sadness/a.wav", "angry/a.wav")
    (note,) = prepare(tmp_path).provenance.notes
    assert note == "The folders Sadness, sad are all read as 'sadness'."


def test_audio_beside_the_label_folders_is_left_out(tmp_path):
    write(tmp_path, "angry/a.wav", "b.wav")
    (row,) = prepare(tmp_path).provenance.left_out
    assert (row.source, row.reason) == ("b.wav", "not in a label folder")


def test_one_recording_in_two_formats_is_kept_once(tmp_path):
    write(tmp_path, "angry/a.wav", "angry/a.flac")  # libsndfile looks inside, not at the name
    manifest = prepare(tmp_path)
    assert manifest.table["id"].to_list() == ["angry/a"]
    assert manifest.provenance.left_out_by_reason() == {"repeated id": 1}


def test_a_format_that_cannot_be_read_is_reported_not_overlooked(tmp_path):
    write(tmp_path, "angry/a.wav")
    (tmp_path / "angry" / "b.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(20))
    (row,) = prepare(tmp_path).provenance.left_out
    assert (row.source, row.reason) == ("angry/b", "unreadable audio")


@pytest.mark.parametrize("pattern", [r"^[^/]+/(\w+)/", r"(x)?/(?P<speaker>F\d)/", r"(F\d)"])
def test_a_pattern_finds_the_speaker_in_the_relative_path(tmp_path, pattern):
    write(tmp_path / "F9", "angry/F1/a.wav", "sad/F2/a.wav")  # F9 is above the root
    manifest = prepare(tmp_path / "F9", speaker_pattern=pattern)
    assert manifest.table["speaker"].to_list() == ["F1", "F2"]
    assert manifest.provenance.grouping == "speaker"


@pytest.mark.parametrize("pattern", [r"speaker(\d+)", r"F(1)", r"(z*)"])
def test_a_pattern_that_misses_a_file_is_refused_with_examples(tmp_path, pattern):
    write(tmp_path, "angry/F1_a.wav", "angry/F2_a.wav")
    with pytest.raises(CorpusError, match=r"no speaker in [12] of 2 files, such as .*F2_a\.wav"):
        prepare(tmp_path, speaker_pattern=pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is no regular expression"), ("F1", "has 0 groups"), ("(F)(1)", "has 2 groups")],
)
def test_a_pattern_without_exactly_one_meaning_is_refused(tmp_path, pattern, message):
    with pytest.raises(ConfigError, match=message):
        prepare(tmp_path, speaker_pattern=pattern)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="No usable utterance"):
        prepare(tmp_path)
