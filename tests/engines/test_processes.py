"""Worker processes: what they are given of this one, and what they have imported already."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from koser.engines.local import iter_map

needs_server = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks workers")


class Seen:
    """Says where a worker is and what it knows."""

    def __call__(self, name):
        return os.environ.get(name), str(Path.cwd()), os.getpid()


def seen_by_workers(name):
    found = list(iter_map(Seen, [name] * 4, n_workers=2))
    assert os.getpid() not in {pid for *_, pid in found}
    return {(value, folder) for value, folder, _ in found}


def test_environment_and_folder_are_those_of_the_moment(tmp_path, monkeypatch):
    # One after the other: the process that forks workers was started with the first.
    for number in range(2):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("KOSER_TEST_SEEN", f"value {number}")
        assert seen_by_workers("KOSER_TEST_SEEN") == {(f"value {number}", str(folder))}
    monkeypatch.delenv("KOSER_TEST_SEEN")
    assert {value for value, _ in seen_by_workers("KOSER_TEST_SEEN")} == {None}


@needs_server
def test_workers_find_imported_what_is_imported_here(tmp_path):
    # In a program of its own: what a test process has imported depends on its tests.
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
        import sys
        from koser.engines.local import iter_map

        class Loaded:
            def __call__(self, name):
                return name in sys.modules

        if __name__ == "__main__":
            import koser.systems.mfcc  # and torch; a worker's start does not come here
            names = ["torch", "koser.systems.mfcc", "koser.systems.ensemble"]
            print(*iter_map(Loaded, names, n_workers=2))
        """),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["True", "True", "False"], done.stderr


def run_interrupted(folder, program):
    """What a program, which makes the file ``ready``, leaves on Ctrl-C; and after how long."""
    (folder / "program.py").write_text(textwrap.dedent(program), encoding="utf-8")
    driver = subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(folder.glob("ready*")):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline, "never ready"
            time.sleep(0.02)
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
        started = time.monotonic()
        # Pipes end when the last process does that holds them.
        out, err = driver.communicate(timeout=60)
        return out.split(), err, time.monotonic() - started
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
@pytest.mark.parametrize(
    "results",
    [
        "iter_map(Sleeping, range(2), n_workers=2)",
        "LocalEngine(2).map_chunks(Sleeping, [[1], [2]], lost=str)",
    ],
)
def test_ctrl_c_ends_workers_in_the_midst_of_a_task(tmp_path, results):
    out, err, seconds = run_interrupted(
        tmp_path,
        f"""
        import os, signal, time
        from pathlib import Path
        from koser.engines.local import LocalEngine, iter_map

        signal.siginterrupt(signal.SIGINT, False)  # as polars does: no wait is interrupted

        class Sleeping:
            def __call__(self, item): return self.finish([item])
            def read(self, rows): return rows
            def finish(self, rows):
                Path("ready").touch()
                time.sleep(600)

        if __name__ == "__main__":
            try:
                list({results})
            except KeyboardInterrupt:
                print("interrupted")
        """,
    )
    assert (out, err) == (["interrupted"], "")
    assert seconds < 30


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
def test_ctrl_c_ends_a_worker_that_is_half_way_through_a_result(tmp_path):
    out, err, seconds = run_interrupted(
        tmp_path,
        """
        import time
        from pathlib import Path
        from koser.engines.local import iter_map

        class Slow:
            def __reduce__(self):  # of a result that takes its time to be read here
                return restore, (b"0" * 2**25,)

        def restore(content):
            Path("ready").touch()
            return content

        class Giving:
            def __call__(self, number):
                return [Slow()]

        if __name__ == "__main__":
            try:
                for _ in iter_map(Giving, iter(int, 1), n_workers=3):
                    pass
            except KeyboardInterrupt:
                print("interrupted")
        """,
    )
    assert (out, err) == (["interrupted"], "")
    assert seconds < 30


@needs_server
def test_ctrl_c_while_workers_are_prepared_is_heard_here_alone(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\npathlib.Path('ready').touch()\ntime.sleep(3)\n", encoding="utf-8"
    )
    out, err, _ = run_interrupted(
        tmp_path,
        """
        from koser.engines import processes
        from koser.engines.local import iter_map

        class Work:
            def __call__(self, item):
                return item

        processes._loaded_here = lambda: ["slow"]
        if __name__ == "__main__":
            try:
                list(iter_map(Work, [1, 2], n_workers=2))
            except KeyboardInterrupt:
                print("interrupted")
        """,
    )
    assert (out, err) == (["interrupted"], "")
