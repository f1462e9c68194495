"""The other end of `zygote`: run commands, and kill them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KILLED = -9


@dataclass(frozen=True)
class Command:
    """One call of ``koser`` and what befalls it.

    Attributes
    ----------
    arguments : tuple[str, ...]
        After ``koser``.
    folder : Path
        Where it is called.
    kill_after : float, optional
        Seconds after which its process group is killed.
    kill_at : int, optional
        Which of its moments (see `zygote`), from 1, it is killed at.
    delay : float
        How many seconds after that moment.
    is_bound_by_rights : bool
        Whether rights of files count even if root runs it.
    file_bytes : int, optional
        How large a file it can write (``RLIMIT_FSIZE``).
    flush_bytes : int
        How much a store's writer keeps in memory.
    """

    arguments: tuple[str, ...]
    folder: Path
    kill_after: float | None = None
    kill_at: int | None = None
    delay: float = 0.0
    is_bound_by_rights: bool = False
    file_bytes: int | None = None
    flush_bytes: int = 1
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    """How a call ended.

    Attributes
    ----------
    status : int
        Exit status; `KILLED` if it was.
    seconds : float
        How long it ran.
    stdout, stderr : str
        What it printed.
    n_moments : int
        Moments it had, if it ended by itself.
    """

    status: int
    seconds: float
    stdout: str
    stderr: str
    n_moments: int

    @property
    def was_killed(self) -> bool:
        """Whether the harness ended it."""
        return self.status == KILLED

    @property
    def is_clear_refusal(self) -> bool:
        """Whether it failed with one line that says why, or as wrongly called, and nothing else."""
        if self.status == 2:
            return self.stderr.startswith("Usage: ") and "Traceback" not in self.stderr
        lines = [line for line in self.stderr.splitlines() if not line.startswith("Note: ")]
        return self.status == 1 and len(lines) == 1 and lines[0].startswith("Error: ")


class Launcher:
    """A zygote and what it is asked; a context manager.

    Parameters
    ----------
    folder : Path
        Where outputs of commands are put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._n_runs = 0
        quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, **quiet},
        )
        if self._answer() != "ready\n":
            raise RuntimeError("the zygote did not start")

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(self, command: Command) -> Ending:
        """Run one command to its end."""
        return self.run_together([command])[0]

    def run_together(self, commands: list[Command]) -> list[Ending]:
        """Start commands at the same time and wait for all."""
        requests = [self._request(command) for command in commands]
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        answers = json.loads(self._answer())
        return [_ending(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def _request(self, command: Command) -> dict[str, Any]:
        self._n_runs += 1
        stem = self._folder / f"{self._n_runs:05d}"
        return {
            "arguments": list(command.arguments),
            "folder": str(command.folder.resolve()),
            "stdout": f"{stem}.out",
            "stderr": f"{stem}.err",
            "moments": f"{stem}.moments",
            "environment": {
                "KOSER_CACHE": str(command.folder / "cache"),
                **command.environment,
            },
            "kill_after": command.kill_after,
            "kill_at": command.kill_at,
            "delay": command.delay,
            "is_bound_by_rights": command.is_bound_by_rights,
            "file_bytes": command.file_bytes,
            "flush_bytes": command.flush_bytes,
        }

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _ending(request: dict[str, Any], answer: dict[str, Any]) -> Ending:
    return Ending(
        answer["status"],
        answer["seconds"],
        _text(request["stdout"]),
        _text(request["stderr"]),
        int(_text(request["moments"]) or 0),
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # killed before it opened it
        return ""
