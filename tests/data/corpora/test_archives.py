"""Archives that are still packed are named, by every adapter; those that are unpacked are not."""

import shutil
import tarfile
import unicodedata
import zipfile

import pytest

from fixtures.aihub_dialogues import write_recording
from fixtures.kemdy import segments19, write_kemdy19
from fixtures.sound import left_out, notes, write_sound
from koser.data import corpora
from koser.data.corpora.archives import still_packed
from koser.errors import CorpusError


def pack(folder, *, suffix=".zip", inside=""):
    """Put the files of `folder` into an archive beside it; the folder stays."""
    archive = folder.with_name(folder.name + suffix)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [f"{inside}{path.relative_to(folder).as_posix()}" for path in paths]
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for path, name in zip(paths, names, strict=True):
                zipped.write(path, name)
    else:
        with tarfile.open(archive, "w:gz" if suffix.endswith("gz") else "w") as tarred:
            for path, name in zip(paths, names, strict=True):
                tarred.add(path, name)
    return archive


def pack_away(folder, **options):
    """The same, and the folder goes."""
    archive = pack(folder, **options)
    shutil.rmtree(folder)
    return archive


def one(root, name):
    (found,) = root.rglob(name)
    return found


# What is packed


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz"])
def test_an_archive_is_packed_until_its_files_lie_somewhere_below_the_root(tmp_path, suffix):
    for number in range(3):
        write_sound(tmp_path / "TS_1" / "말" / f"a{number}.wav")
    archive = pack(tmp_path / "TS_1", suffix=suffix, inside="deep/")
    assert still_packed(tmp_path) == []
    (tmp_path / "TS_1").rename(tmp_path / unicodedata.normalize("NFD", "다른 곳"))
    assert still_packed(tmp_path) == []
    one(tmp_path, "a0.wav").unlink()  # one that the user has no use for
    assert still_packed(tmp_path) == []
    one(tmp_path, "a1.wav").unlink()
    assert still_packed(tmp_path) == [archive]


def test_a_file_that_every_archive_has_makes_none_of_them_unpacked(tmp_path):
    for actor in ("F0001", "F0002"):
        (tmp_path / actor).mkdir()
        (tmp_path / actor / "script.txt").write_text("same", encoding="utf-8")
        for number in range(3):
            write_sound(tmp_path / actor / f"{actor}_{number:06d}.wav")
    pack(tmp_path / "F0001")
    assert still_packed(tmp_path) == []
    archive = pack_away(tmp_path / "F0002")
    assert still_packed(tmp_path) == [archive]


def test_sound_that_became_another_format_was_unpacked_and_labels_of_its_name_were_not(tmp_path):
    for folder, name in (("TS", "a.wav"), ("TL", "a.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"")
        pack(tmp_path / folder)
    (tmp_path / "TS" / "a.wav").rename(tmp_path / "TS" / "a.flac")
    assert still_packed(tmp_path) == []
    shutil.rmtree(tmp_path / "TL")
    assert still_packed(tmp_path) == [tmp_path / "TL.zip"]


def test_what_cannot_be_looked_into_is_named_and_what_is_empty_is_not(tmp_path):
    for name in ("a.zip", "b.tar", "c.tgz"):
        (tmp_path / name).write_bytes(b"PK")
    (tmp_path / "d").mkdir()
    pack(tmp_path / "d")
    assert [path.name for path in still_packed(tmp_path)] == ["a.zip", "b.tar", "c.tgz"]
    assert still_packed(tmp_path / "a.zip") == still_packed("memory://bucket/a") == []


# What adapters say


def test_sound_that_is_packed_while_labels_are_not_is_named_with_the_command(tmp_path):
    write_recording(tmp_path, "HS_0001")
    archive = pack_away(one(tmp_path, "TS_01.실내_1"))
    with pytest.raises(CorpusError) as caught:
        corpora.prepare("aihub71631", tmp_path)
    line = str(caught.value)
    assert "1 rows read: 1 × recording without audio file" in line
    assert f"Not unpacked: '{archive}'" in line
    assert f"Run: unzip -q '{archive}' -d '{archive.with_suffix('')}'" in line
    assert "Check that this" not in line
    assert "\n" not in line


def test_rows_of_two_tables_without_their_sound_do_not_hide_the_archive(tmp_path):
    write_kemdy19(tmp_path, {1: segments19()})
    pack_away(tmp_path / "wav", inside="wav/")
    with pytest.raises(CorpusError, match=r"no audio file.*Not unpacked: '.*wav\.zip'"):
        corpora.prepare("kemdy19", tmp_path)


def test_one_of_two_archives_that_is_packed_is_noted_and_shown(koser, tmp_path):
    for name in ("HS_0001", "HS_0002"):
        write_recording(tmp_path, name)
    sound = one(tmp_path, "HS_0002.wav")
    folder = sound.parent.with_name("TS_02")
    folder.mkdir()
    sound.rename(folder / sound.name)
    pack(one(tmp_path, "TS_01.실내_1"))
    archive = pack_away(folder)
    manifest = corpora.prepare("aihub71631", tmp_path)
    assert left_out(manifest, "recording without audio file") == ["HS_0002"]
    assert f"Not unpacked: '{archive}'. koser reads no archives." in notes(manifest)
    assert "TS_01.실내_1.zip" not in notes(manifest)
    status, out, _ = koser("prepare", "aihub71631", tmp_path, "--out", "m.parquet")
    assert (status, "Note: Not unpacked" in out) == (0, True)
    assert "TS_02.zip" in out.replace("\n", "")


def test_labels_that_are_packed_while_sound_is_not_are_named(tmp_path):
    name = "0001_G1A3E1S0C0_ABC_000001"
    write_sound(tmp_path / "TS1" / "1.기쁨" / f"{name}.wav")
    (tmp_path / "TL1").mkdir()
    (tmp_path / "TL1" / f"{name}.json").write_text("{}", encoding="utf-8")
    archive = pack_away(tmp_path / "TL1")
    assert f"Not unpacked: '{archive}'" in notes(corpora.prepare("aihub466", tmp_path))
    # and where there are none at all, beside what was looked for
    write_recording(tmp_path / "free", "HS_0001")
    archive = pack_away(one(tmp_path, "TL_01.실내"))
    with pytest.raises(CorpusError, match=r"No label file of AI Hub 71631.*Not unpacked: '.*TL_01"):
        corpora.prepare("aihub71631", tmp_path / "free")


def test_an_adapter_that_counts_what_it_hears_still_says_that_there_is_more(tmp_path):
    for actor in (1, 2):
        write_sound(tmp_path / f"Actor_{actor:02d}" / f"03-01-06-01-02-01-{actor:02d}.wav")
    assert notes(corpora.prepare("ravdess", tmp_path)) == ""
    pack_away(tmp_path / "Actor_02")
    manifest = corpora.prepare("ravdess", tmp_path)
    assert len(manifest) == 1
    assert "Actor_02.zip" in notes(manifest)


def test_rows_that_lack_sound_although_all_is_unpacked_blame_no_archive(tmp_path):
    write_recording(tmp_path, "HS_0001")
    sound = one(tmp_path, "HS_0001.wav")
    sound.rename(sound.with_name("renamed.wav"))
    pack(sound.parent)
    with pytest.raises(CorpusError, match="recording without audio file") as caught:
        corpora.prepare("aihub71631", tmp_path)
    assert "Not unpacked" not in str(caught.value)
    assert "Check that this is the folder of a 'aihub71631' corpus." in str(caught.value)
