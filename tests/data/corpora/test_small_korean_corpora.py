"""AI Hub 259 and 637, Hi,KIA and nEMO: everything is in the names, or in one short table."""

import pytest

from fixtures.sound import left_out, n_accounted, notes, rows_of, write_sound
from koser.data.corpora import aihub259, aihub637, hikia, nemo
from koser.errors import CorpusError, LabelError

# AI Hub 259


@pytest.mark.parametrize(
    ("number", "label"),
    [
        *((1, "happiness"), (50, "happiness"), (51, "surprise"), (100, "surprise")),
        *((101, "neutral"), (151, "fear"), (201, "disgust"), (250, "disgust"), (251, "angry")),
        *((300, "angry"), (301, "sadness"), (350, "sadness")),
    ],
)
def test_259_a_block_of_fifty_numbers_is_an_emotion(tmp_path, number, label):
    write_sound(tmp_path / "wav" / f"007-{number:03d}.wav")
    row = rows_of(aihub259.prepare(tmp_path))[f"007-{number:03d}"]
    assert (row["label"], row["speaker"], row["text"]) == (label, "007", None)


def test_259_numbers_outside_the_blocks_and_other_names_are_reported(tmp_path):
    for name in ("000-001", "000-000", "000-351", "intro"):
        write_sound(tmp_path / f"{name}.wav")
    manifest = aihub259.prepare(tmp_path)
    assert left_out(manifest, "number belongs to no emotion") == ["000-000", "000-351"]
    assert manifest.provenance.unlisted == (str(tmp_path / "intro.wav"),)
    assert "Each sentence belongs to one emotion" in notes(manifest)


def test_259_videos_are_refused_with_the_command_that_helps(tmp_path):
    for number in (1, 2):
        (tmp_path / f"000-{number:03d}.m2ts").write_bytes(b"G")
    with pytest.raises(CorpusError, match=r"2 videos and no sound.*ffmpeg -nostdin") as caught:
        aihub259.prepare(tmp_path)
    assert "\n" not in str(caught.value)


# AI Hub 637

SCRIPT = """F0001_000001 NEUTRAL #지문
전화가 끊어지자||HL 창밖을 보는||M 고양이||||HL
저놔가 끄너지자||HL 창바끌 보는||M 고양이||||HL

F0001_000002 UNPLEASURE
또|||LHL 비가 오네||HL
또|||LHL 비가 오네||HL

F0001_000003 JOY
드디어||H 다 됐다||HL
드디어||H 다 됃따||HL

F0001_000004 ANXIOUS
이게 아닌데||HL
이게 아닌데||HL
"""


@pytest.fixture
def root637(tmp_path):
    for speaker, encoding in (("F0001", "utf-8"), ("M0003", "cp949")):
        folder = tmp_path / "large" / speaker
        for number in range(1, 5):
            write_sound(folder / "wav" / f"{speaker}_{number:06d}.wav", sampling_rate=48_000)
        script = SCRIPT.replace("F0001", speaker).encode(encoding)
        (folder / "script.txt").write_bytes(script)
    return tmp_path


def test_637_emotions_kinds_and_sentences_come_from_the_script(root637):
    manifest = aihub637.prepare(root637)
    assert manifest.labels == ("happiness", "neutral", "anxiety", "unpleasure")
    narrated = rows_of(manifest)["F0001_000001"]
    assert narrated["text"] == "전화가 끊어지자 창밖을 보는 고양이"  # no breaks, not as pronounced
    assert (narrated["label"], narrated["release"]) == ("neutral", "지문")
    acted = rows_of(manifest)["M0003_000002"]
    assert (acted["label"], acted["release"]) == ("unpleasure", None)
    assert (acted["speaker"], acted["gender"]) == ("M0003", "male")
    assert acted["text"] == "또 비가 오네"


def test_637_all_sixteen_labels_are_kept(tmp_path):
    assert len(aihub637.EMOTIONS) == 16
    entries = [
        f"F0001_{number:06d} {label}\n문장||HL\n문장||HL\n"
        for number, label in enumerate(aihub637.EMOTIONS, start=1)
    ]
    (tmp_path / "script.txt").write_text("\n".join(entries), encoding="utf-8")
    for number in range(1, 17):
        write_sound(tmp_path / f"F0001_{number:06d}.wav")
    assert len(aihub637.prepare(tmp_path).labels) == 16


def test_637_recordings_of_lay_people_and_missing_ones_are_reported(root637):
    stray = write_sound(root637 / "small" / "P001" / "P001_0001.wav")
    (lost,) = root637.rglob("F0001_000003.wav")
    lost.unlink()
    manifest = aihub637.prepare(root637)
    assert manifest.provenance.unlisted == (str(stray),)
    assert left_out(manifest, "no audio file") == ["F0001_000003"]
    assert n_accounted(manifest) == manifest.provenance.n_rows_in == 8


def test_637_a_line_of_which_only_the_id_can_be_read_is_reported(root637):
    (script,) = root637.rglob("F0001/script.txt")
    text = script.read_text("utf-8")
    text = text.replace("F0001_000001 NEUTRAL #지문", "F0001_000001 NEUTRAL #지문 (낭독)")
    script.write_text(text.replace("F0001_000003 JOY", "F0001_000003 JOY/SAD"), "utf-8")
    manifest = aihub637.prepare(root637)
    assert rows_of(manifest)["F0001_000001"]["release"] == "지문 (낭독)"
    assert left_out(manifest, "malformed line") == ["F0001_000003"]
    assert n_accounted(manifest) == manifest.provenance.n_rows_in == 8
    assert manifest.provenance.unlisted == ()


def test_637_what_is_no_script_or_has_another_emotion_is_refused(root637, tmp_path):
    (script,) = root637.rglob("F0001/script.txt")
    script.write_text("F0001_000001 SLEEPY\n하암\n하암\n", encoding="utf-8")
    with pytest.raises(LabelError, match=r"'SLEEPY' \(1 rows\)"):
        aihub637.prepare(root637)
    script.write_text("read me\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="has no line such as 'F0001_000001 NEUTRAL"):
        aihub637.prepare(root637)
    for path in root637.rglob("script.txt"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"No script\.txt of AI Hub 637"):
        aihub637.prepare(root637)


# Hi,KIA


@pytest.fixture
def root_hikia(tmp_path):
    for speaker in ("F5", "M1"):
        for scene, letter in (("S01", "a"), ("S04", "h"), ("S07", "s"), ("S10", "n")):
            write_sound(tmp_path / "hi_kia" / "wav" / f"{speaker}_{scene}_2_{letter}.wav")
    return tmp_path


def write_split(root, rows):
    path = root / "hi_kia" / "split" / "F5_eval.csv"
    path.parent.mkdir(exist_ok=True)
    header = "fname,angry,happy,neutral,sad"
    path.write_text("\n".join([header, *rows, ""]), encoding="utf-8")


def test_hikia_names_say_everything(root_hikia):
    manifest = hikia.prepare(root_hikia)
    assert manifest.labels == ("angry", "happiness", "neutral", "sadness")
    row = rows_of(manifest)["M1_S07_2_s"]
    assert (row["label"], row["speaker"], row["gender"]) == ("sadness", "M1", "male")
    assert (row["session"], row["text"]) == ("S07", "Hi, KIA")


def test_hikia_the_split_tables_must_agree_with_the_names(root_hikia):
    write_split(root_hikia, ["F5_S01_2_a,1,0,0,0", "F5_S04_2_h,0,0,0,1"])
    manifest = hikia.prepare(root_hikia)
    assert left_out(manifest, "conflicting labels") == ["F5_S04_2_h"]
    (row,) = manifest.provenance.left_out
    assert row.detail == "happiness by name, sadness in the split"


@pytest.mark.parametrize("suffix", [".wav", ".WAV"])
def test_hikia_a_split_table_may_name_files_with_their_suffix(root_hikia, suffix):
    write_split(root_hikia, [f"F5_S01_2_a{suffix},1,0,0,0", f"F5_S04_2_h{suffix},0,0,0,1"])
    assert left_out(hikia.prepare(root_hikia), "conflicting labels") == ["F5_S04_2_h"]


def test_hikia_a_letter_of_another_release_needs_the_tables(root_hikia):
    write_sound(root_hikia / "hi_kia" / "wav" / "F5_S05_1_e.wav")
    assert left_out(hikia.prepare(root_hikia), "unknown emotion letter") == ["F5_S05_1_e"]
    write_split(root_hikia, ["F5_S05_1_e,0,1,0,0"])
    assert rows_of(hikia.prepare(root_hikia))["F5_S05_1_e"]["label"] == "happiness"


# nEMO


@pytest.fixture
def root_nemo(tmp_path):
    lines = ["file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"]
    for speaker, gender in (("AB0", "female"), ("XY0", "male")):
        for emotion in nemo.EMOTIONS:
            name = f"{speaker}_{emotion}_4.wav"
            write_sound(tmp_path / "samples" / name, sampling_rate=24_000)
            # as the original: quotation marks are text, ids have blanks before them
            text = '„Kot” to "zwierzę".'
            lines.append(f"{name}\t{emotion}\t{text}\tkot\t        {speaker}\t{gender}\t27")
    (tmp_path / "data.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_nemo_names_and_table_are_joined(root_nemo):
    manifest = nemo.prepare(root_nemo)
    assert manifest.labels == ("angry", "fear", "happiness", "neutral", "sadness", "surprise")
    row = rows_of(manifest)["XY0_surprised_4"]
    assert (row["label"], row["speaker"], row["gender"]) == ("surprise", "XY0", "male")
    assert (row["age"], row["language"]) == (27, "pl")
    assert row["text"] == '„Kot” to "zwierzę".'


def test_nemo_a_recording_that_the_table_lacks_is_kept_without_text(root_nemo):
    write_sound(root_nemo / "samples" / "AB0_fear_9.wav")
    manifest = nemo.prepare(root_nemo)
    assert rows_of(manifest)["AB0_fear_9"]["text"] is None
    assert "1 recordings are not in data.tsv" in notes(manifest)
