"""Worker processes: what they are given of this one, and what they have imported already."""

import os
import subprocess
import sys
import textwrap
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
