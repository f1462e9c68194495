"""Let the disk end in the middle of a command, free space, go on, and compare.

Where tmpfs can be mounted (by root) the disk is really full, at any size. Elsewhere no file
may grow beyond a size (``RLIMIT_FSIZE``), which a full disk looks like to whoever writes
the largest file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from faults.jobs import Inputs, Job
from faults.kept import differences
from faults.launching import Command, Ending, Launcher
from faults.whole import half_written

_PAGE = 4096
_ENOUGH = 256 * 2**20
_BALLAST = 64 * _PAGE
_UNMOUNT_TRIES = 50


@dataclass
class Filled:
    """What became of a job on disks that were too small.

    Attributes
    ----------
    job : str
        Its name.
    means : str
        ``tmpfs`` or ``RLIMIT_FSIZE``.
    n_disks, n_refused : int
        Disks tried, and those on which it could not finish and said so in one line.
    faults : list[str]
        Everything else.
    """

    job: str
    means: str
    n_disks: int = 0
    n_refused: int = 0
    faults: list[str] = field(default_factory=list)


@cache
def can_mount() -> bool:
    """Whether a tmpfs can be mounted here: not by everybody, and in few containers."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True)
        if tried.returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[Path]:
    """A disk mounted at `folder`, and a folder on it, for which `n_bytes` are left, none too."""
    folder.mkdir(parents=True)
    options = f"size={n_bytes + _BALLAST},mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        room = folder / "room"
        room.mkdir()
        # The smallest disk has a page, which is all that a small command needs.
        with (folder / "ballast").open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(_PAGE))
            file.truncate(file.tell() - n_bytes)
        yield room
    finally:
        _unmount(folder)
        folder.rmdir()


def _unmount(folder: Path) -> None:
    """Take a disk away; what a command has started ends just after it, and may be in there."""
    for _ in range(_UNMOUNT_TRIES):
        tried = subprocess.run(["umount", str(folder)], capture_output=True)
        if tried.returncode == 0:
            return
        time.sleep(0.1)
    raise OSError(tried.stderr.decode())


def enlarge(folder: Path) -> None:
    """Free so much space that everything fits."""
    subprocess.run(["mount", "-o", f"remount,size={_ENOUGH}", str(folder)], check=True)


def fill(
    launcher: Launcher, inputs: Inputs, folder: Path, job: Job, n_disks: int, *, seed: int = 0
) -> Filled:
    """Run `job` on `n_disks` disks that are too small for it, then with space."""
    with_mounts = can_mount()
    filled = Filled(job.name, "tmpfs" if with_mounts else "RLIMIT_FSIZE")
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir(parents=True)
    whole = launcher.run(Command(job.arguments(inputs), undisturbed))
    if whole.status != 0:
        raise RuntimeError(whole.stderr)
    expected = job.content(undisturbed)
    sizes = [path.stat().st_size for path in undisturbed.rglob("*") if path.is_file()]
    # A tmpfs needs a page for each folder too, and the largest file decides under a limit.
    largest = sum(-(-size // _PAGE) * _PAGE for size in sizes) if with_mounts else max(sizes)
    rng = np.random.default_rng([seed, *job.name.encode()])
    for number in range(n_disks):
        filled.n_disks += 1
        n_bytes = int(rng.integers(0 if with_mounts else 1, largest))
        n_bytes -= n_bytes % _PAGE if with_mounts else 0
        disk = folder / f"disk-{number:02d}"
        ending, found = _try(launcher, inputs, disk, job, n_bytes, expected, with_mounts)
        filled.n_refused += ending.is_clear_refusal
        filled.faults += [f"{n_bytes} bytes: {what}" for what in found]
    shutil.rmtree(undisturbed)
    return filled


def _try(
    launcher: Launcher,
    inputs: Inputs,
    disk: Path,
    job: Job,
    n_bytes: int,
    expected: dict[str, object],
    with_mounts: bool,
) -> tuple[Ending, list[str]]:
    arguments = job.arguments(inputs)
    if not with_mounts:
        disk.mkdir()
        ending = launcher.run(Command(arguments, disk, file_bytes=n_bytes))
        found = _judge(ending, disk)
        found += _go_on(launcher, inputs, disk, job, ending, expected)
        shutil.rmtree(disk)
        return ending, found
    with small_disk(disk, n_bytes) as room:
        ending = launcher.run(Command(arguments, room))
        found = _judge(ending, room)
        enlarge(disk)
        found += _go_on(launcher, inputs, room, job, ending, expected)
    return ending, found


def _judge(ending: Ending, disk: Path) -> list[str]:
    found = half_written(disk)
    if ending.status != 0 and not ending.is_clear_refusal:
        found.append(f"no clear refusal: status {ending.status}, {ending.stderr[-1500:]!r}")
    return found


def _go_on(
    launcher: Launcher,
    inputs: Inputs,
    disk: Path,
    job: Job,
    ending: Ending,
    expected: dict[str, object],
) -> list[str]:
    """With space again: the command ends, with what it would have come to."""
    if ending.status != 0:
        again = launcher.run(Command((*job.arguments(inputs), *job.again), disk))
        if again.status != 0:
            return [f"not finished with space: status {again.status}, {again.stderr[-1500:]!r}"]
    found = differences(expected, job.content(disk))
    left = [path.name for path in disk.rglob("*") if path.name.endswith(".partial")]
    return found + [f"left behind: {name}" for name in left]
