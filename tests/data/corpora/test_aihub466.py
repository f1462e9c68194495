import json
import shutil
import unicodedata

import pytest

from fixtures.sound import left_out, n_accounted, notes, rows_of, write_sound
from koser.data.corpora.aihub466 import EMOTIONS, prepare
from koser.errors import CorpusError, LabelError

FOLDERS = ("1.기쁨", "2.슬픔", "3.분노", "4.불안", "5.상처", "6.당황", "7.중립")
IN_FILE = ("Happy", "Sad", "Angry", "Anxious", "Hurt", "Embarrassed", "Neutrality")


def write(root, stem, *, folder, form="NFC", emotion=None, part="1.감정", release="1.Training"):
    """A recording and its label file, in the AI Hub's two trees."""
    person = stem.rpartition("_")[0]

    def place(tree, suffix):
        inside = unicodedata.normalize(form, f"{release}/{tree}/{part}/{folder}/{person}")
        return root / inside / f"{stem}{suffix}"

    sound = write_sound(place("원천데이터", ".wav"))
    if emotion is not None:
        label = place("라벨링데이터", ".json")
        label.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "전사정보": {"OrgLabelText": f"  {stem} 화분에 물을 줬어. ", "TransLabelText": "물을"},
            "화자정보": {
                "Emotion": emotion,
                "Gender": "Female",
                "Age": "30~39",
                "SpeakerName": "x",
            },
        }
        label.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8-sig")
    return sound


def stem(emotion, *, person=("0001", "ABC"), number=1, style="0"):
    return f"{person[0]}_G1A3E{emotion}S{style}C0_{person[1]}_{number:06d}"


@pytest.fixture
def make(tmp_path):
    def write_all(form="NFC", people=(("0001", "ABC"), ("0044", "XYZ"))):
        for place, (folder, emotion) in enumerate(zip(FOLDERS, IN_FILE, strict=True), start=1):
            for person in people:
                write(
                    tmp_path, stem(place, person=person), folder=folder, form=form, emotion=emotion
                )
        return tmp_path

    return write_all


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_seven_emotions_by_name_folder_and_label_file(make, form):
    manifest = prepare(make(form))
    assert manifest.labels == (
        *("angry", "happiness", "neutral", "sadness"),
        *("anxiety", "embarrassment", "hurt"),
    )
    for place in range(1, 8):
        row = rows_of(manifest)[stem(place)]
        assert row["label"] == EMOTIONS[str(place)]
        assert row["text"] == f"{stem(place)} 화분에 물을 줬어."
        assert (row["gender"], row["age"], row["release"]) == ("female", None, "Training")


def test_a_person_is_one_speaker_over_all_emotions(make):
    table = prepare(make()).table
    assert sorted(set(table["speaker"])) == ["0001_ABC", "0044_XYZ"]
    per_speaker = table.group_by("speaker").agg(n="label")
    assert {len(labels) for labels in per_speaker["n"]} == {7}


def test_other_parts_are_counted_and_not_read(make, tmp_path):
    root = make()
    write(root, stem(1, style="4", number=9), folder="1.기쁨", part="4.감정x스타일")
    write(root, stem(0, style="2", number=9), folder="2.구연체", part="2.스타일")
    manifest = prepare(root)
    assert len(manifest) == 14 == manifest.provenance.n_rows_in
    assert "2 recordings of other parts" in notes(manifest)


def test_labels_that_contradict_each_other_are_left_out(make, tmp_path):
    root = make()
    write(root, stem(1, number=7), folder="2.슬픔", emotion="Happy")
    write(root, stem(1, number=8), folder="1.기쁨", emotion="Sad")
    manifest = prepare(root)
    found = left_out(manifest, "conflicting labels")
    assert sorted(found) == [stem(1, number=7), stem(1, number=8)]
    details = {row.detail for row in manifest.provenance.left_out}
    assert details == {"happiness, sadness"}
    assert n_accounted(manifest) == manifest.provenance.n_rows_in


def test_without_label_files_texts_are_missing_and_it_says_so(make, tmp_path):
    root = make()
    shutil.rmtree(root / "1.Training" / "라벨링데이터")
    manifest = prepare(root)
    assert len(manifest) == 14
    assert manifest.table["text"].null_count() == 14
    assert "14 recordings have no label file" in notes(manifest)


def test_a_damaged_or_unknown_label_file_is_not_passed_over(make, tmp_path):
    root = make()
    (label,) = root.rglob(f"{stem(3)}.json")
    label.write_bytes(b"{")
    assert left_out(prepare(root), "unreadable label file") == [stem(3)]
    content = {"화자정보": {"Emotion": "Sleepy"}}
    label.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LabelError, match=r"says 'sleepy', which AI Hub 466 does not have"):
        prepare(root)


def test_what_is_still_packed_is_named_with_the_command(tmp_path):
    (tmp_path / "TS1.zip").write_bytes(b"PK")
    with pytest.raises(CorpusError, match=r"Not unpacked: '.*TS1\.zip'.*unzip -q"):
        prepare(tmp_path)
