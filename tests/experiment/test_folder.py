"""A run folder has one process at work in it, and nothing half-written under a final name."""

import os
import signal
import subprocess
import sys

import pytest

from koser.data.corpora.folder import prepare
from koser.errors import RunError
from koser.experiment.folder import check_folder, claimed, differences, unlock_finished
from koser.experiment.request import TrainRequest
from koser.files import locked
from koser.training.ranks import LostRankError


@pytest.fixture
def experiment(tone_corpus, tmp_path):
    prepare(tone_corpus(), speaker_pattern=r"(s\d)_").write(tmp_path / "m.parquet")
    return TrainRequest("mfcc", "speaker", manifest=tmp_path / "m.parquet").resolve()


def claim(folder, experiment, *, resume=False):
    return claimed(folder, experiment, resume=resume, command=("koser",))


def test_a_second_process_is_refused_while_the_first_is_at_work_and_not_after(experiment, tmp_path):
    folder = tmp_path / "run"

    def begin_beside():
        with claim(folder, experiment, resume=True):
            pass

    with claim(folder, experiment):
        (folder / "parts").mkdir()
        with pytest.raises(RunError, match=r"Another process is training in .* --out"):
            begin_beside()
        assert (folder / "run.json").exists(), "the loser took the winner's folder away"
    assert not any(path.name.startswith(".") for path in folder.iterdir())
    begin_beside()


def test_a_killed_process_holds_nothing(experiment, tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from koser.files import locked
Path("run").mkdir()
with locked(Path("run/.lock"), on_wait=lambda: None):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path / "run") == [".lock"]
    with claim(tmp_path / "run", experiment):
        assert (tmp_path / "run" / "run.json").exists()


def test_who_waited_for_the_folder_looks_again_at_what_is_in_it(experiment, tmp_path):
    """Between the first look and the lock another process may have run and ended."""
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder / ".lock", on_wait=lambda: None):
        check_folder(experiment, folder, resume=False)
        (folder / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="is not empty"), claim(folder, experiment):
        pass


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b'{"experiment": 3}']
)
def test_a_damaged_description_of_a_run_is_refused_in_one_line(experiment, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes(content)
    with pytest.raises(RunError, match="Cannot read what run is in") as caught:
        differences(experiment, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_machine_that_refuses_before_anything_was_trained_leaves_the_folder_free(
    experiment, tmp_path
):
    def fail():
        with claim(tmp_path / "a" / "run", experiment):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["last.pth", "tuning.json"])
def test_what_was_trained_or_tried_outlives_a_machine_that_refuses(experiment, tmp_path, name):
    kept = tmp_path / "run" / "parts" / "seed42-fold00" / name

    def fail():
        with claim(tmp_path / "run", experiment):
            kept.parent.mkdir(parents=True)
            kept.write_bytes(b"hours of work")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert kept.read_bytes() == b"hours of work"


def test_a_lost_process_leaves_the_folder_to_be_resumed(experiment, tmp_path):
    def fail():
        with claim(tmp_path / "run", experiment):
            raise LostRankError("gone")

    with pytest.raises(LostRankError):
        fail()
    assert sorted(os.listdir(tmp_path / "run")) == ["config.toml", "run.json", "split.parquet"]
    check_folder(experiment, tmp_path / "run", resume=True)


def test_a_lock_outlives_neither_its_process_nor_another_one_at_work(experiment, tmp_path):
    folder = tmp_path / "run"
    with claim(folder, experiment):
        unlock_finished(folder)
        assert (folder / ".lock").exists()
    unlock_finished(folder)
    (folder / ".lock").touch()  # as a killed process leaves it
    unlock_finished(folder)
    assert sorted(os.listdir(folder)) == ["config.toml", "run.json", "split.parquet"]
