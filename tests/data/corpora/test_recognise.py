"""Which corpus a folder is: each invented corpus under its own name, and nothing else."""

import json
import os
import sys
from pathlib import Path

import pytest

from fixtures.aihub263 import invent_rows, wav_bytes, write_corpus
from fixtures.aihub_dialogues import write_recording
from fixtures.kemdy import segments19, segments20, write_kemdy19, write_kemdy20
from koser.data import corpora
from koser.data.corpora.survey import MAX_NAMES_PER_SUFFIX, survey
from koser.errors import CorpusError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wav_bytes(1) if name.endswith(".wav") else b"")
    return root


WRITERS = {
    "aihub58": lambda root: touch(root, "라벨데이터/clip_13.json", "원천데이터/0013.wav"),
    "aihub259": lambda root: touch(root, "000-001.m2ts", "000-051.m2ts"),
    "aihub263": lambda root: write_corpus(root, invent_rows()),
    "aihub466": lambda root: touch(
        root, "TS1/1.감정/1.기쁨/0001_G1A3E1S0C0_ABC/0001_G1A3E1S0C0_ABC_000001.wav"
    ),
    "aihub637": lambda root: touch(root, "F0001/script.txt", "F0001/wav/F0001_000001.wav"),
    "aihub71631": lambda root: write_recording(root, "HS_0001"),
    "aihub71632": lambda root: write_recording(root / "자유대화 (청소년)", "YS_0001"),
    "emodb": lambda root: touch(root, "wav/03a01Fa.wav", "wav/16b10Td.wav"),
    "emotiontts": lambda root: touch(root, "emotional-to-emotional/nea/wav/nea00001.wav"),
    "hikia": lambda root: touch(root, "hi_kia/wav/F5_S01_1_a.wav"),
    "kemdy19": lambda root: write_kemdy19(root, {1: segments19()}),
    "kemdy20": lambda root: write_kemdy20(root, {1: segments20()}),
    "kemocon": lambda root: touch(
        root, "debate_audios/p1.p2.wav", "emotion_annotations/self_annotations/P1.self.csv"
    ),
    "nemo": lambda root: touch(root, "samples/WR0_surprised_64.wav", "data.tsv"),
    "ravdess": lambda root: touch(root, "Actor_01/03-01-06-01-02-01-01.wav"),
}


def test_every_recogniser_is_tested_here():
    assert set(WRITERS) == set(corpora.RECOGNISERS)
    # the rest take the user's word for what they are
    assert set(corpora.ADAPTERS) - set(WRITERS) == {"folder", "table"}


@pytest.mark.parametrize("name", WRITERS)
def test_each_corpus_is_recognised_as_itself_with_what_was_found(tmp_path, name):
    WRITERS[name](tmp_path)
    found = corpora.recognise(tmp_path)
    assert found.corpus == name
    assert found.reason


@pytest.mark.parametrize("name", WRITERS)
def test_each_corpus_is_recognised_from_two_folders_above(tmp_path, name):
    (tmp_path / "a" / "b").mkdir(parents=True)
    WRITERS[name](tmp_path / "a" / "b")
    assert corpora.recognise(tmp_path).corpus == name


def test_an_automatic_manifest_is_that_of_the_adapter(tmp_path):
    WRITERS["ravdess"](tmp_path)
    automatic = corpora.prepare("auto", tmp_path)
    assert automatic.table.equals(corpora.prepare("ravdess", tmp_path).table)


def test_several_corpora_in_one_folder_are_refused_with_both_reasons(tmp_path):
    for name in ("ravdess", "emodb"):
        WRITERS[name](tmp_path / name)
    with pytest.raises(CorpusError) as caught:
        corpora.recognise(tmp_path)
    line = str(caught.value)
    assert "emodb (files named like 03a01Fa.wav)" in line
    assert "ravdess (files named like 03-01-06-01-02-01-01.wav)" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("names", "corpus"),
    [
        (("angry/001-001.wav", "sad/011-001.wav"), "aihub259"),
        (("angry/F1_S1_1_a.wav",), "hikia"),
        (("기쁨/F1/nea00001.wav", "슬픔/F2/nea00002.wav"), "emotiontts"),
        (("Happy/001-001.FLAC", "misc/001-002.wav"), "aihub259"),
    ],
)
@pytest.mark.parametrize("below", ["", "deeper/"])
def test_labels_that_someone_gave_by_folders_are_not_overwritten(tmp_path, names, corpus, below):
    touch(tmp_path, *(f"{below}{name}" for name in names))
    folder = names[0].partition("/")[0]
    with pytest.raises(CorpusError, match="several corpora") as caught:
        corpora.prepare("auto", tmp_path)
    line = str(caught.value)
    assert f"folder (sound in folders named by emotions: {below}{folder}" in line
    assert f"koser prepare {corpus} {tmp_path} --out" in line
    assert f"koser prepare folder {tmp_path / below} --out" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("names", "corpus"),
    [
        (["Training/02.라벨/angry/notes.txt", "000-001.wav"], "aihub259"),  # no sound in it
        ([" /000-001.wav"], "aihub259"),
        (["joy.wav/000-001.wav"], "aihub259"),
        (["1.감정/3.분노/0001_G1A3E3S0C0_ABC/0001_G1A3E3S0C0_ABC_000001.wav"], "aihub466"),
    ],
)
def test_folders_that_are_no_labels_leave_a_corpus_what_it_is(tmp_path, names, corpus):
    assert corpora.recognise(touch(tmp_path / "sad", *names)).corpus == corpus


def test_a_folder_of_something_else_names_what_was_looked_for(tmp_path):
    touch(tmp_path, "angry/one.wav", "sad/two.wav")
    (tmp_path / "notes.json").write_text(json.dumps({"Conversation": []}), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"3 files looked at, for .*kemdy19.*prepare folder"):
        corpora.recognise(tmp_path)
    with pytest.raises(CorpusError, match="No folder at"):
        corpora.recognise(tmp_path / "gone")


def test_a_survey_looks_at_few_names_of_a_large_folder_and_still_into_the_next(tmp_path):
    many = (f"a/{number:05d}.wav" for number in range(MAX_NAMES_PER_SUFFIX + 50))
    for name in (*many, "z/Actor_01/03-01-06-01-02-01-01.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert len(survey(tmp_path).paths) == MAX_NAMES_PER_SUFFIX + 1
    assert corpora.recognise(tmp_path).corpus == "ravdess"


@pytest.mark.parametrize(
    ("sound", "tables", "corpus"),
    [
        ("{:024x}.wav", ["4차년도.csv"], "aihub263"),
        ("F0001_{:06d}.WAV", ["script.txt"], "aihub637"),
    ],
)
def test_few_tables_are_seen_behind_the_sound_that_lies_beside_them(
    tmp_path, sound, tables, corpus
):
    touch(tmp_path, *(sound.format(number) for number in range(MAX_NAMES_PER_SUFFIX + 50)))
    touch(tmp_path, *tables)
    assert corpora.recognise(tmp_path).corpus == corpus


def test_label_files_are_seen_behind_the_sound_that_lies_beside_them(tmp_path):
    write_recording(tmp_path, "zz")
    for path in [*tmp_path.rglob("zz.*")]:
        path.rename(tmp_path / path.name)
    for number in range(MAX_NAMES_PER_SUFFIX + 50):
        (tmp_path / f"{number:05d}.wav").touch()
    assert corpora.recognise(tmp_path).corpus == "aihub71631"


def test_a_survey_of_a_folder_in_which_no_two_names_end_alike_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[survey.__module__], "MAX_NAMES", 30)
    touch(tmp_path, *(f"part.{number:05d}" for number in range(50)))
    assert len(survey(tmp_path).paths) == 30


def test_youths_are_told_by_their_folder_however_it_is_typed(tmp_path, monkeypatch):
    root = tmp_path / "71632" / "라벨"
    write_recording(root, "YS_0001")
    monkeypatch.chdir(root)
    for typed in (tmp_path, root, "."):
        found = corpora.recognise(Path(typed))
        assert (found.corpus, "a folder named 71632" in found.reason) == ("aihub71632", True)
    # both together are read as adults' are, which tells them apart by their folders
    write_recording(tmp_path / "71631", "HS_0001")
    assert corpora.recognise(tmp_path).corpus == "aihub71631"


def test_a_survey_ends_where_links_go_in_a_circle(tmp_path):
    touch(tmp_path, "a/one.wav")
    os.symlink(tmp_path, tmp_path / "a" / "round")
    assert list(survey(tmp_path).names) == ["a/one.wav"]
