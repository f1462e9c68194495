import shutil
from pathlib import Path

import polars as pl
import pytest

from fixtures.aihub263 import wav_bytes
from koser.data.corpora.ravdess import prepare

REAL = Path(__file__).resolve().parents[3] / ".." / "shared" / "corpora" / "ravdess"


def write(root, name, *, content=None):
    path = root / f"Actor_{name[-6:-4]}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav_bytes(sum(name.encode()) if content is None else content))
    return path


@pytest.fixture
def root(tmp_path):
    for emotion in range(1, 9):
        for actor in (1, 2):
            write(tmp_path, f"03-01-{emotion:02d}-01-{actor:02d}-01-{actor:02d}.wav")
    return tmp_path


def test_the_fields_of_the_name_become_columns(root):
    manifest = prepare(root)
    assert manifest.labels == (
        *("angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
        "calm",
    )
    happy = manifest.table.filter(pl.col("id") == "03-01-03-01-02-01-02").row(0, named=True)
    assert happy["label"] == "happiness"
    assert (happy["speaker"], happy["gender"]) == ("Actor_02", "female")
    assert happy["text"] == "Dogs are sitting by the door."
    calm = manifest.table.filter(pl.col("id") == "03-01-02-01-01-01-01").row(0, named=True)
    assert (calm["label"], calm["gender"]) == ("calm", "male")
    assert calm["text"] == "Kids are talking by the door."
    assert manifest.provenance.grouping == "speaker"


def test_song_video_and_unknown_numbers_are_left_out_with_their_reasons(root):
    write(root, "03-02-03-01-01-01-01.wav")
    write(root, "01-01-03-01-01-01-01.mp4")
    write(root, "02-01-03-01-01-01-01.mp4")
    write(root, "03-01-09-01-01-01-01.wav")
    write(root, "03-01-01-01-03-01-01.wav")
    (root / "theme.wav").write_bytes(wav_bytes(1))
    provenance = prepare(root).provenance
    assert provenance.left_out_by_reason() == {
        "video": 2,
        "unknown sentence number": 1,
        "unknown emotion number": 1,
        "song": 1,
    }
    assert provenance.unlisted == (str(root / "theme.wav"),)


def test_the_doubled_copy_of_kaggle_is_read_once(root):
    n_files = len(prepare(root))
    shutil.copytree(root / "Actor_01", root / "audio_speech_actors_01-24" / "Actor_01")
    manifest = prepare(root)
    assert len(manifest) == n_files
    assert manifest.provenance.left_out_by_reason() == {"another copy of the same file": 8}


def test_the_identical_pair_is_noted_and_kept(root):
    for repetition in ("01", "02"):
        write(root, f"03-01-03-01-02-{repetition}-07.wav", content=7)
    manifest = prepare(root)
    assert len(manifest) == 18
    assert "are the same bytes" in manifest.provenance.notes[0]
    write(root, "03-01-03-01-02-02-07.wav", content=8)
    assert prepare(root).provenance.notes == ()


@pytest.mark.integration
def test_the_complete_speech_set_has_the_published_counts():
    manifest = prepare(REAL)
    counts = dict(manifest.table["label"].value_counts().iter_rows())
    assert len(manifest) == manifest.provenance.n_rows_in == 1440
    assert counts.pop("neutral") == 96
    assert set(counts.values()) == {192}
    assert len(counts) == 7
    assert manifest.table["speaker"].n_unique() == 24
    assert manifest.table["text"].n_unique() == 2
    assert manifest.table.filter(pl.col("gender") == "male")["speaker"].n_unique() == 12
    assert len(manifest.provenance.notes) == 1
