import errno
import os
import shutil
import unicodedata
from pathlib import Path

import polars as pl
import pytest

from fixtures.aihub263 import invent_rows, wav_bytes, write_corpus
from koser.data.arrangement import arrange, load_arranged
from koser.data.corpora import aihub263, folder, table
from koser.data.manifest import Manifest
from koser.errors import CorpusError, ManifestError


@pytest.fixture
def rows():
    return invent_rows()


@pytest.fixture
def raw(tmp_path, rows):
    return write_corpus(tmp_path / "raw", rows, form="NFD")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "emotions"


def contents(out):
    """Every path below `out` with its kind, target or bytes, and time of change."""
    state = {}
    for path in sorted(out.rglob("*")):
        status = path.lstat()
        is_link = path.is_symlink()
        content = os.readlink(path) if is_link else path.read_bytes() if path.is_file() else None
        state[path.relative_to(out).as_posix()] = (content, status.st_mtime_ns, status.st_ino)
    return state


def names(out):
    return {path.relative_to(out).as_posix() for path in out.rglob("*.wav")}


@pytest.mark.parametrize("copy", [False, True])
def test_audio_is_arranged_by_label_with_the_manifest_beside_it(raw, rows, out, copy):
    manifest = aihub263.prepare(raw)
    arranged = arrange(manifest, out, copy=copy)
    for before, after in zip(
        manifest.table.iter_rows(named=True), arranged.table.iter_rows(named=True), strict=True
    ):
        path = Path(after["path"])
        assert path == out / before["label"] / f"{before['id']}.wav"
        assert path.is_symlink() != copy
        assert path.read_bytes() == Path(before["path"]).read_bytes()
        assert {**after, "path": before["path"]} == before
    assert Manifest.read(out / "manifest.parquet").table.equals(arranged.table)
    assert arranged.provenance == manifest.provenance
    assert len(names(out)) == len(rows)


@pytest.mark.parametrize("copy", [False, True])
def test_a_second_run_changes_nothing(raw, out, copy):
    manifest = aihub263.prepare(raw)
    arrange(manifest, out, copy=copy)
    before = contents(out)
    arrange(manifest, out, copy=copy)
    assert contents(out) == before


@pytest.mark.parametrize("copy", [False, True])
def test_a_changed_label_moves_the_file_and_empty_labels_go(tmp_path, rows, out, copy):
    first = [rows[0], rows[1].but(situation="disgust")]
    second = [rows[0], rows[1].but(situation="fear")]
    raw = write_corpus(tmp_path / "raw", first)
    arrange(aihub263.prepare(raw), out, copy=copy)
    assert names(out) == {f"angry/{rows[0].wav_id}.wav", f"disgust/{rows[1].wav_id}.wav"}
    write_corpus(tmp_path / "raw", second)
    arrange(aihub263.prepare(raw), out, copy=copy)
    assert names(out) == {f"angry/{rows[0].wav_id}.wav", f"fear/{rows[1].wav_id}.wav"}
    assert not (out / "disgust").exists()


def test_stale_links_go_and_foreign_files_stay(tmp_path, rows, out):
    raw = write_corpus(tmp_path / "raw", rows)
    arrange(aihub263.prepare(raw), out)
    foreign = out / "angry" / "mine.wav"
    foreign.write_bytes(wav_bytes(1))
    replaced = out / "angry" / f"{rows[0].wav_id}.wav"  # a link that the user made a file
    replaced.unlink()
    replaced.write_bytes(wav_bytes(2))
    shutil.rmtree(raw)
    arrange(aihub263.prepare(write_corpus(raw, rows[1:])), out)
    assert foreign.read_bytes() == wav_bytes(1)
    assert replaced.read_bytes() == wav_bytes(2)
    expected = {f"{path.parent.name}/{path.name}" for path in (foreign, replaced)}
    listed = {str(Path(p).relative_to(out)) for p in load_paths(out)}
    assert names(out) == listed | expected


def load_paths(out):
    return Manifest.read(out / "manifest.parquet").table["path"].to_list()


def test_a_foreign_file_in_the_way_is_never_overwritten(raw, rows, out):
    mine = out / "angry" / f"{rows[0].wav_id}.wav"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(ManifestError, match=r"1 files in .* were not made by koser"):
        arrange(aihub263.prepare(raw), out)
    assert mine.read_bytes() == b"mine"
    assert len(list(out.rglob("*"))) == 2


@pytest.mark.parametrize("copies", [(False, True), (True, False)])
def test_links_become_copies_and_copies_links(raw, out, copies):
    manifest = aihub263.prepare(raw)
    for copy in copies:
        arrange(manifest, out, copy=copy)
    assert {path.is_symlink() for path in out.rglob("*.wav")} == {not copies[-1]}
    assert len(names(out)) == len(manifest)


def test_links_follow_a_corpus_that_was_moved(raw, out, tmp_path):
    arrange(aihub263.prepare(raw), out)
    moved = raw.rename(tmp_path / "moved")
    arranged = arrange(aihub263.prepare(moved), out)
    assert all(Path(path).resolve().is_relative_to(moved) for path in arranged.table["path"])


def test_a_copy_is_renewed_when_its_source_changes(raw, out):
    manifest = aihub263.prepare(raw)
    arranged = arrange(manifest, out, copy=True)
    source, target = Path(manifest.table["path"][0]), Path(arranged.table["path"][0])
    content = wav_bytes(4711)
    source.write_bytes(content)
    os.utime(source, ns=(10**18, 10**18))
    arrange(manifest, out, copy=True)
    assert target.read_bytes() == content


class Killed(BaseException):
    pass


def kill_after(n_done, monkeypatch):
    """Break a run off at the replacement of a file after `n_done` of them."""
    n_calls, replace = 0, os.replace

    def replace_until_killed(source, target):
        nonlocal n_calls
        n_calls += 1
        if n_calls > n_done:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_until_killed)


@pytest.mark.parametrize("copy", [False, True])
def test_a_run_killed_anywhere_is_finished_by_the_next(tmp_path, rows, copy, monkeypatch):
    few = [*rows[:4], *rows[-2:]]
    before = aihub263.prepare(write_corpus(tmp_path / "before", few))
    changed = [few[0].but(situation="fear"), *few[2:]]
    after = aihub263.prepare(write_corpus(tmp_path / "after", changed))
    arrange(after, tmp_path / "clean", copy=copy)
    n_done, was_killed = 0, True
    while was_killed:
        out = tmp_path / f"killed_{n_done}"
        arrange(before, out, copy=not copy)
        with monkeypatch.context() as patch:
            kill_after(n_done, patch)
            try:
                arrange(after, out, copy=copy)
                was_killed = False
            except Killed:
                n_done += 1
        arranged = arrange(after, out, copy=copy)
        assert names(out) == names(tmp_path / "clean")
        assert not list(out.rglob(".*.partial"))
        assert all(Path(path).is_symlink() != copy for path in arranged.table["path"])
        assert load_arranged(out).table.equals(arranged.table)
    assert n_done == 5 + 3  # five files, the ledger before and after, the manifest


def test_a_first_run_that_was_killed_is_not_taken_for_a_folder_of_labels(raw, out, monkeypatch):
    def kill(self, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(Manifest, "write", kill)
    with pytest.raises(KeyboardInterrupt):
        arrange(aihub263.prepare(raw), out)
    with pytest.raises(ManifestError, match=r"was not finished. Run preprocess\.py again"):
        load_arranged(out)


def test_a_file_system_without_links_names_the_option_that_copies(raw, out, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted", target)

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(ManifestError, match=r"has no symbolic links .* --copy"):
        arrange(aihub263.prepare(raw), out)
    assert len(arrange(aihub263.prepare(raw), out, copy=True)) == 50


def test_a_full_disk_is_one_readable_error(raw, out, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(ManifestError, match=r"No space left on device.*run it again"):
        arrange(aihub263.prepare(raw), out)


def test_the_manifest_of_an_arranged_folder_is_not_arranged_onto_itself(raw, out):
    arrange(aihub263.prepare(raw), out, copy=True)
    before = contents(out)
    with pytest.raises(ManifestError, match="arranged already"):
        arrange(load_arranged(out), out)
    assert contents(out) == before


def test_audio_that_is_gone_is_refused_before_anything_is_touched(raw, out):
    manifest = aihub263.prepare(raw)
    shutil.rmtree(raw)
    with pytest.raises(ManifestError, match="50 audio files of the manifest are gone"):
        arrange(manifest, out)
    assert not out.exists()


def write_table(tmp_path, *rows):
    (tmp_path / "a.wav").write_bytes(wav_bytes(1))
    file = tmp_path / "rows.csv"
    lines = "".join(f"{identifier},a.wav,{label}\n" for identifier, label in rows)
    file.write_text(f"id,path,label\n{lines}", encoding="utf-8")
    return table.prepare(file)


def test_no_id_or_label_leads_out_of_the_folder_or_hides_a_file(tmp_path, out):
    manifest = write_table(tmp_path, ("../../x", "fear"), (".y", "../up"), ("s/1", "fear"))
    arrange(manifest, out)
    assert names(out) == {"fear/_.__..__x.wav", "_.__up/_y.wav", "fear/s__1.wav"}
    assert load_arranged(out).table["id"].to_list() == ["../../x", ".y", "s/1"]


def test_ids_that_would_share_a_file_are_refused(tmp_path, out):
    manifest = write_table(tmp_path, ("a/b", "fear"), ("a__b", "fear"))
    with pytest.raises(ManifestError, match=r"share one file: fear/a__b\.wav"):
        arrange(manifest, out)


# Reading it back


def test_a_folder_that_was_moved_is_read_with_its_new_paths(raw, rows, out, tmp_path):
    arranged = arrange(aihub263.prepare(raw), out, copy=True)
    moved = out.rename(tmp_path / "moved")
    loaded = load_arranged(moved)
    assert all(Path(path).is_relative_to(moved) for path in loaded.table["path"])
    assert loaded.table.drop("path").equals(arranged.table.drop("path"))
    assert loaded.grouping_column == "group"


def test_names_that_an_archive_decomposed_are_found(tmp_path, out):
    arrange(write_table(tmp_path, ("하나", "fear")), out, copy=True)
    path = out / "fear" / "하나.wav"
    path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    (found,) = load_arranged(out).table["path"]
    assert os.path.exists(found)


def test_audio_that_is_gone_or_under_another_label_is_reported(raw, rows, out):
    arrange(aihub263.prepare(raw), out)
    name = f"{rows[0].wav_id}.wav"
    (out / "angry" / name).rename(out / "sadness" / name)
    with pytest.raises(ManifestError, match=rf"1 of the 50 .* angry/{name}. Run preprocess.py"):
        load_arranged(out)
    (out / "sadness" / name).rename(out / "angry" / name)
    shutil.rmtree(raw)
    with pytest.raises(ManifestError, match="50 of the 50 audio files"):
        load_arranged(out)


def test_audio_that_the_manifest_does_not_name_is_reported(raw, out):
    arrange(aihub263.prepare(raw), out)
    (out / "fear" / "new.wav").write_bytes(wav_bytes(1))
    with pytest.raises(ManifestError, match=r"1 audio files that its manifest.*fear/new\.wav"):
        load_arranged(out)


def test_label_folders_without_a_manifest_are_read_without_speakers(tmp_path):
    (tmp_path / "angry").mkdir()
    (tmp_path / "angry" / "a.wav").write_bytes(wav_bytes(1))
    loaded = load_arranged(tmp_path)
    assert loaded.provenance == folder.prepare(tmp_path).provenance
    assert loaded.grouping_column is None
    with pytest.raises(CorpusError, match="No folder at"):
        load_arranged(tmp_path / "nowhere")


def test_a_ledger_that_is_damaged_is_refused(raw, out):
    arrange(aihub263.prepare(raw), out)
    (out / ".arranged.json").write_text("{", encoding="utf-8")
    with pytest.raises(ManifestError, match="cannot be read"):
        arrange(aihub263.prepare(raw), out)
    assert pl.read_parquet(out / "manifest.parquet").height == 50
