import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from koser.errors import EXTRA_OF_MODULE, KoserError, StoreError, one_line_errors
from koser.files import (
    copy_atomically,
    locked,
    replacing,
    replacing_folder,
    reserve,
    write_atomically,
)
from koser.hashes import is_as_written, read_sums, write_sums


def test_a_file_appears_whole_and_alone(tmp_path):
    write_atomically(tmp_path / "a", "가".encode())
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def fail_half_way():
        with replacing(tmp_path / "a") as partial:
            partial.write_bytes(b"half")
            raise KoserError("half way")

    with pytest.raises(KoserError, match="half way"):
        fail_half_way()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to("hop")
    (tmp_path / "hop").symlink_to(tmp_path / "far" / "a")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "a").read_bytes() == b"new"
    assert not (tmp_path / "far" / "a").is_symlink()
    assert os.listdir(tmp_path / "far") == ["a"]
    assert sorted(os.listdir(tmp_path)) == ["far", "hop", "link"]


def test_a_link_to_nothing_comes_to_point_to_a_file_and_one_to_itself_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("a")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "loop", b"")
    assert (tmp_path / "loop").is_symlink()


def test_a_pipe_gets_the_whole_content_or_nothing_and_stays_one(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)

    def written_to(block):
        reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
        reader.start()
        try:
            block()
        finally:
            reader.join()

    def fail_half_way():
        with replacing(path) as partial:
            partial.write_bytes(b"half")
            raise KoserError("half way")

    written_to(lambda: write_atomically(path, b"whole" * 100_000))
    with pytest.raises(KoserError, match="half way"):
        written_to(fail_half_way)
    assert got == [b"whole" * 100_000, b""]
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_one(tmp_path):
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.write_bytes(b"")
    except PermissionError:
        pytest.skip("devices cannot be made or used here")
    (tmp_path / "link").symlink_to(path)
    for name in ("null", "link"):
        write_atomically(tmp_path / name, b"content")
    assert stat.S_ISCHR(path.stat().st_mode)
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "null"]


KILLED = """
import os, signal
from pathlib import Path
from koser.files import replacing, replacing_folder
with replacing(Path("a")) as partial:
    partial.write_bytes(b"half")
    with replacing_folder(Path("b")) as folder:
        folder.mkdir()
        (folder / "c").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_leaves_is_hidden_and_gone_after_the_next_one(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert all(name.startswith(".") for name in os.listdir(tmp_path))
    write_atomically(tmp_path / "a", b"")
    with replacing_folder(tmp_path / "b") as folder:
        folder.mkdir()
        (folder / "d").touch()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == b""
    assert os.listdir(tmp_path / "b") == ["d"]


def test_two_writers_of_one_file_do_not_touch_each_others(tmp_path):
    path = tmp_path / "a"
    with replacing(path) as first:
        first.write_bytes(b"first")
        with replacing(path) as second:
            assert second != first
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_many_threads_write_one_file_and_each_time_it_is_whole(tmp_path):
    path, seen = tmp_path / "a", []
    write_atomically(path, b"0" * 1000)

    def write(digit):
        for _ in range(30):
            write_atomically(path, digit * 1000)
            seen.append(path.read_bytes())

    threads = [threading.Thread(target=write, args=(f"{n}".encode(),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 120
    assert all(len(content) == 1000 and len(set(content)) == 1 for content in seen)
    assert os.listdir(tmp_path) == ["a"]


def test_a_copy_is_whole_and_its_source_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    copy_atomically(tmp_path / "a", tmp_path / "b")
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"content"] * 2


HOLDER = """
from pathlib import Path
from koser.files import locked
with locked(Path("lock"), on_wait=lambda: None):
    print("held", flush=True)
    input()
"""


def test_a_lock_keeps_others_out_until_its_holder_is_killed(tmp_path):
    path, waited = tmp_path / "lock", []
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"

    def refuse():
        raise StoreError("taken")

    with pytest.raises(StoreError, match="taken"), locked(path, on_wait=refuse):
        pass

    def kill():
        waited.append(True)
        holder.kill()

    with locked(path, on_wait=kill):
        assert waited
    holder.communicate()


def test_the_lock_of_a_file_that_its_holder_removed_is_not_taken_for_one(tmp_path):
    """Whoever waited for it would share the lock with whoever made the file anew."""
    path, order = tmp_path / "lock", []

    def wait_for_it():
        with locked(path, on_wait=lambda: order.append("waits")):
            order.append(os.path.samestat(path.stat(), path.stat()) and "held")

    with locked(path, on_wait=lambda: None):
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        while not order:
            pass
        path.unlink()
    thread.join()
    assert order == ["waits", "held"]
    assert path.exists()


def test_where_nothing_can_be_locked_work_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(_file, _how):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock", on_wait=lambda: pytest.fail("nobody has it")):
        write_atomically(tmp_path / "a", b"content")
    assert "cannot be locked" in caplog.text
    assert sorted(os.listdir(tmp_path)) == ["a", "lock"]


def test_the_space_of_a_sparse_file_is_taken(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**20)
    assert path.stat().st_blocks * 512 < 2**20
    reserve(path)
    assert path.stat().st_blocks * 512 >= 2**20


def test_sums_are_those_of_sha256sum(tmp_path):
    for name, content in {"a": b"one", "b c": b"two"}.items():
        (tmp_path / name).write_bytes(content)
    write_sums(tmp_path, ["b c", "a"])
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert checked.stdout.splitlines() == ["a: OK", "b c: OK"]
    assert is_as_written(tmp_path / "a") is True
    (tmp_path / "a").write_bytes(b"onf")
    assert is_as_written(tmp_path / "a") is False
    (tmp_path / "new").touch()
    assert is_as_written(tmp_path / "new") is None
    assert set(read_sums(tmp_path)) == {"a", "b c"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_the_machine_refuses_is_one_line_with_the_file_and_the_way_out(capsys, number):
    error = OSError(number, os.strerror(number), "some/file")
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise error
    assert caught.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith(f"Error: {os.strerror(number)} ('some/file').")
    assert line.count("\n") == 1


def test_other_errors_of_the_system_are_bugs_and_keep_their_traceback():
    with pytest.raises(FileNotFoundError), one_line_errors():
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")


def test_a_full_disk_names_the_file_that_was_to_be_written_and_not_its_hidden_twin(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value) == f"[Errno 28] No space left on device: '{tmp_path / 'a'}'"
    assert os.listdir(tmp_path) == []


def test_a_refusal_is_one_line_on_standard_error_and_status_1(capsys):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise KoserError("what, why, next")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "Error: what, why, next\n"


def test_a_missing_extra_is_named_with_the_line_that_installs_it(capsys):
    with pytest.raises(SystemExit), one_line_errors():
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    assert "pip install 'koser[train]'" in capsys.readouterr().err


def test_a_module_that_belongs_to_no_extra_is_a_bug_and_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError), one_line_errors():
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")


def test_an_interrupt_ends_with_status_130(capsys):
    with pytest.raises(SystemExit) as caught, one_line_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert "What was finished is kept" in capsys.readouterr().err


def test_extras_are_those_of_the_package():
    import re
    import tomllib
    from pathlib import Path

    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    brought = {"pyarrow": "ray[data]"}  # by another package's extra
    for module, extra in EXTRA_OF_MODULE.items():
        packages = [re.split("[<>]", line)[0].replace("-", "_") for line in extras[extra]]
        assert brought.get(module, module) in (
            *packages,
            *(each.split("[")[0] for each in packages),
        )
