"""Start `koser` again and again, quickly, and end it in the ways that machines do.

A program of its own: it imports what the commands import, then forks a child for every
request, so that a trial takes as long as the work and not as the imports. Requests come as
lines of JSON on standard input, endings go out the same way.

A child leads a process group. It is killed by the clock, or at one of its *moments*: just
before or after it opens a file for writing, renames, removes, makes a folder, takes a lock
or waits for the disk. The whole group goes at once, as when a machine loses power or a job
scheduler ends a job.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

# What any command may load. Nothing here may start threads: a fork would lose them.
MODULES = (
    *("koser.cli", "koser.experiment.run", "koser.experiment.extraction", "koser.data.corpora"),
    *("koser.experiment.transcription", "koser.inference.export", "koser.inference.output"),
    *("koser.reporting.comparison_page", "koser.systems.mfcc", "koser.systems.wav2vec2ft"),
    *("koser.systems.wav2vec2", "koser.systems.multimodal", "koser.systems.graphs"),
    *(
        "koser.terminal.results",
        "matplotlib.backends.backend_agg",
        "koreanize_matplotlib",
        "jinja2",
    ),
    *("transformers.models.wav2vec2.modeling_wav2vec2", "faster_whisper", "onnxruntime"),
    *("onnx", "jinja2"),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_AUDITED = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "sqlite3.connect")
_POLL_SECONDS = 0.001
_LIMIT_SECONDS = 300.0


class _Moments:
    """Counts a process's moments, and ends its group some seconds after one of them."""

    def __init__(self, folder: str, chosen: int | None, delay: float) -> None:
        self.n_seen = 0
        self._folder, self._chosen, self._delay = folder, chosen, delay
        sys.addaudithook(self._on_event)
        os.fsync = self._around(os.fsync)  # not audited by Python
        os.replace = self._around(os.replace)

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING and str(path).startswith(self._folder):
                self._pass()
        elif event in _AUDITED:
            self._pass()

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self._pass()
            result = function(*arguments, **options)
            self._pass()
            return result

        return counted

    def _pass(self) -> None:
        self.n_seen += 1
        if self.n_seen != self._chosen:
            return
        if self._delay == 0:
            os.killpg(0, signal.SIGKILL)
        threading.Thread(target=self._kill_later, daemon=True).start()

    def _kill_later(self) -> None:
        time.sleep(self._delay)
        os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve requests until standard input ends."""
    for name in MODULES:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        requests = json.loads(line)
        started = time.monotonic()
        children = {_fork(request): request for request in requests}
        endings = {}
        while len(endings) < len(children):
            _end_what_is_due(children, endings, time.monotonic() - started)
            for pid in children.keys() - endings.keys():
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    seconds = time.monotonic() - started
                    endings[pid] = {"status": os.waitstatus_to_exitcode(status), "seconds": seconds}
                    _kill_group(pid)  # what a killed parent left behind
            time.sleep(_POLL_SECONDS)
        print(json.dumps([endings[pid] for pid in children]), flush=True)


def _end_what_is_due(
    children: dict[int, dict[str, Any]], endings: dict[int, Any], elapsed: float
) -> None:
    for pid, request in children.items():
        due = request["kill_after"]
        if pid not in endings and elapsed > (_LIMIT_SECONDS if due is None else due):
            _kill_group(pid)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.chdir(request["folder"])
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        path = os.devnull if name == "stdin" else request[name]
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.update(request["environment"])
    _limit(request)
    moments = _Moments(request["folder"], request["kill_at"], request["delay"])
    sys.argv = ["koser", *request["arguments"]]
    from koser.cli import main as koser
    from koser.features import store

    # Twenty clips are written out as often as a corpus of hours.
    store._FLUSH_BYTES = request["flush_bytes"]
    status = 0
    try:
        koser()
    except SystemExit as error:
        status = error.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    # What follows is the harness's own. Were it refused, this process would go on as a server.
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    sys.stdout.flush()
    sys.stderr.flush()
    with open(request["moments"], "w", encoding="ascii") as file:
        file.write(str(moments.n_seen))
    os._exit(status)


def _limit(request: dict[str, Any]) -> None:
    """Take rights and space away."""
    if request["file_bytes"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails, as on a full disk
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"], hard))
    if request["is_bound_by_rights"]:
        # Root without its capabilities owns its files, and is refused like any owner.
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
            raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    main()
