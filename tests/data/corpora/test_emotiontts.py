from pathlib import Path

import pytest

from fixtures.aihub263 import wav_bytes
from koser.data.corpora.emotiontts import prepare
from koser.errors import CorpusError

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "corpora" / "emotiontts_open_db"


def write(root, part, speaker, number, *, transcript="말한 문장", script="대본 문장"):
    folder = root / "Emotional" / part / speaker
    stem = f"{speaker}{number:05d}"
    texts = {"transcript": transcript, "script": script}
    for name in ("wav", *texts):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "wav" / f"{stem}.wav").write_bytes(wav_bytes(sum(stem.encode()) * number))
    for name, text in texts.items():
        if text is not None:
            path = folder / name / f"{stem}.txt"
            path.write_text(f"{text}\n", encoding="utf-8-sig")
    return folder / "wav" / f"{stem}.wav"


@pytest.fixture
def root(tmp_path):
    for speaker in ("nea", "neo"):
        for number in (1, 100, 101, 200, 201, 300, 301, 400):
            write(tmp_path, "emotional-to-emotional", speaker, number)
    return tmp_path


def test_numbers_201_to_300_are_sadness_and_301_to_400_angry_against_the_readme(root):
    manifest = prepare(root)
    labels = dict(zip(manifest.table["id"], manifest.table["label"], strict=True))
    expected = ["neutral", "happiness", "sadness", "angry"]
    for block, label in enumerate(expected):
        assert labels[f"nea{100 * block + 1:05d}"] == labels[f"neo{100 * block + 100:05d}"] == label
    assert manifest.labels == ("angry", "happiness", "neutral", "sadness")
    assert "swaps the last two" in manifest.provenance.notes[0]


def test_speakers_and_genders_come_from_the_name(root):
    table = prepare(root).table
    people = set(table.select("speaker", "gender").iter_rows())
    assert people == {("nea", "female"), ("neo", "male")}
    assert table["corpus"].unique().to_list() == ["emotiontts"]


@pytest.mark.parametrize("below", ["", "Emotional", "Emotional/emotional-to-emotional"])
def test_any_folder_at_or_above_the_part_will_do(root, below):
    assert len(prepare(root / below)) == 16


def test_the_transcript_is_preferred_and_the_script_stands_in(root):
    part = "emotional-to-emotional"
    write(root, part, "neb", 1, transcript=None)
    write(root, part, "neb", 2, transcript=" ")
    write(root, part, "neb", 3, transcript=None, script=None)
    manifest = prepare(root)
    text = dict(zip(manifest.table["id"], manifest.table["text"], strict=True))
    assert text["nea00001"] == "말한 문장"
    assert text["neb00001"] == text["neb00002"] == "대본 문장"
    assert text["neb00003"] is None
    assert "1 utterances have no transcript" in manifest.provenance.notes[-1]


def test_the_plain_part_is_read_with_its_doubt_noted(root):
    write(root, "plain-to-emotional", "ema", 250)
    write(root, "plain-to-emotional", "emh", 350)
    manifest = prepare(root)
    plain = manifest.table.filter(manifest.table["release"] == "plain-to-emotional")
    assert set(plain.select("speaker", "gender", "label").iter_rows()) == {
        ("ema", "female", "sadness"),
        ("emh", "male", "angry"),
    }
    assert any("sentences are plain" in note for note in manifest.provenance.notes)
    assert not any(
        "sentences are plain" in note
        for note in prepare(root / "Emotional" / "emotional-to-emotional").provenance.notes
    )


def test_other_audio_is_unlisted_and_numbers_beyond_400_are_left_out(root):
    write(root, "emotional-to-emotional", "nea", 401)
    write(root, "emotional-to-emotional", "nea", 0)
    (root / "song.wav").write_bytes(wav_bytes(1))
    provenance = prepare(root).provenance
    assert provenance.unlisted == (str(root / "song.wav"),)
    assert [row.source for row in provenance.left_out] == ["nea00000", "nea00401"]


def test_a_second_copy_is_left_out_but_another_recording_is_refused(root):
    copy = root / "again" / "nea00001.wav"
    copy.parent.mkdir()
    original = root / "Emotional/emotional-to-emotional/nea/wav/nea00001.wav"
    copy.write_bytes(original.read_bytes())
    (row,) = prepare(root).provenance.left_out
    assert (row.source, row.reason) == ("nea00001", "another copy of the same file")
    copy.write_bytes(wav_bytes(12345))
    with pytest.raises(CorpusError, match="2 different recordings are named 'nea00001'"):
        prepare(root)


@pytest.mark.integration
def test_the_public_sample_is_ten_speakers_with_twenty_sentences():
    manifest = prepare(REAL)
    table = manifest.table
    assert len(manifest) == manifest.provenance.n_rows_in == 200
    assert table["speaker"].value_counts()["count"].to_list() == [20] * 10
    assert table["label"].value_counts()["count"].to_list() == [50] * 4
    assert table["text"].null_count() == 0
    # Each sentence belongs to one emotion and is read by all ten speakers; four of the twenty
    # are said (and transcribed) in two ways, so that equal texts are not all equal sentences.
    assert table["id"].str.slice(3).n_unique() == 20
    assert table["text"].n_unique() == table.select("text", "label").n_unique() == 24
    assert set(table["sampling_rate"]) == {22_050}
    assert not any(text.startswith("\ufeff") for text in table["text"])
