"""Whose a run folder is: what it holds, who may run in it, and who is at work there now.

``config.toml``, ``split.parquet`` and ``run.json`` are written first, in this order, and say
what the run is; ``report.html`` last, and says that it is finished. Meanwhile ``.lock`` keeps
a second process out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from koser.config import write_toml
from koser.errors import KoserError, RunError
from koser.experiment.environment import describe_environment
from koser.files import PARTIAL_SUFFIX, locked, write_json
from koser.training.ranks import LostRankError

if TYPE_CHECKING:
    from koser.experiment.run import Experiment

# What says which run a folder holds, in the order it is written.
_DESCRIPTION = ("config.toml", "split.parquet", "run.json")
_LOCK = ".lock"
# What a training leaves that is worth going on with: an epoch, or a setting that was tried.
_KEPT = ("parts/*/*.pth", "parts/*/tuning.json")


def refuse_full(folder: Path) -> None:
    """Refuse a folder for a new result that is a file, or holds anything.

    Raises
    ------
    RunError
        If it does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"'{folder}' is not empty. Give another folder with --out.")


def differences(experiment: Experiment, folder: Path) -> list[str]:
    """What makes the run in `folder` another one than `experiment`; nothing if it is that.

    Parameters
    ----------
    experiment : Experiment
        What is to be tried.
    folder : Path
        A run folder.

    Returns
    -------
    list[str]
        Keys of `Experiment.identity`.

    Raises
    ------
    RunError
        If the folder does not say what run it is.
    """
    path = folder / "run.json"
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8"))["experiment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"Cannot read what run is in '{folder}': {error!r}. If '{path}' is damaged, train into "
            f"another folder."
        ) from error
    return [key for key, value in experiment.identity().items() if known.get(key) != value]


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` has left its report, which comes last."""
    return (folder / "report.html").exists()


def check_folder(experiment: Experiment, folder: Path, *, resume: bool) -> None:
    """Refuse a folder that `experiment` cannot be run in.

    Parameters
    ----------
    experiment : Experiment
        What is to be tried.
    folder : Path
        Where.
    resume : bool
        Whether an interrupted run of it may be there.

    Raises
    ------
    RunError
        If the folder holds something else.
    """
    if resume and _is_barely_begun(folder):
        return
    if resume and (folder / "run.json").exists():
        different = differences(experiment, folder)
        if different:
            raise RunError(
                f"'{folder}' holds another run (different: {', '.join(different)}). "
                f"Resume with its own settings, or train into another folder with --out."
            )
    elif folder.exists() and not folder.is_dir():
        raise RunError(f"'{folder}' is a file. Give a folder for the run with --out.")
    elif folder.exists() and names_in(folder):
        raise RunError(
            f"'{folder}' is not empty. Add --resume to go on with the run in it, "
            f"or give another folder with --out."
        )


def _is_barely_begun(folder: Path) -> bool:
    """Whether a run was killed while it still wrote what it is, before anything else."""
    if not folder.is_dir():
        return False
    names = names_in(folder)
    return bool(names) and all(
        name in _DESCRIPTION[:-1] or name.endswith(PARTIAL_SUFFIX) for name in names
    )


def names_in(folder: Path) -> set[str]:
    """What is in a folder, but for the lock of who is at work there."""
    return {path.name for path in folder.iterdir()} - {_LOCK}


@contextmanager
def claimed(
    folder: Path, experiment: Experiment, *, resume: bool, command: Sequence[str]
) -> Iterator[None]:
    """Make `folder` this run's, or prove that it already is.

    If koser refuses before any training has left something, the folder is given back: the
    command can be corrected and run again as it is.

    Raises
    ------
    RunError
        If the folder is taken, cannot be made, or another process is at work in it.
    """
    check_folder(experiment, folder, resume=resume)
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    with held(folder):
        check_folder(experiment, folder, resume=resume)  # another process may have filled it
        if (folder / "run.json").exists():
            yield
        else:
            with _given_back(folder, new):
                _describe(folder, experiment, command)
                yield


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make `folder` if there is none, and keep every other process out of it.

    Raises
    ------
    RunError
        If it cannot be made, or another process is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot make the run folder '{folder}': {error.strerror}.") from error
    with locked(folder / _LOCK, on_wait=partial(_refuse_company, folder)):
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)


def unlock_finished(folder: Path) -> None:
    """Remove the lock from a finished run whose process was killed before it could do so.

    Where another process is at work, or nothing may be written, it stays.
    """
    if (folder / _LOCK).exists():
        with suppress(RunError, OSError), held(folder):
            pass


def _refuse_company(folder: Path) -> None:
    raise RunError(
        f"Another process is training in '{folder}'. Wait for it, or give another folder with "
        f"--out."
    )


@contextmanager
def _given_back(folder: Path, new: Sequence[Path]) -> Iterator[None]:
    """Empty `folder`, and remove what was made for it, if nothing came of the run."""
    try:
        yield
    except LostRankError:
        raise  # no refusal: --resume goes on here
    except (KoserError, OSError):
        if not any(path for pattern in _KEPT for path in folder.glob(pattern)):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for each in new:
                with suppress(OSError):  # someone else has put something there
                    each.rmdir()
        raise


def _describe(folder: Path, experiment: Experiment, command: Sequence[str]) -> None:
    """Write what the run is."""
    write_toml(experiment.config, folder / "config.toml")
    experiment.split.write(folder / "split.parquet")
    description = {
        "name": experiment.name,
        "experiment": experiment.identity(),
        "manifest": json.loads(experiment.manifest.provenance.to_json()),
        "command": list(command),
        "environment": describe_environment(),
    }
    write_json(description, folder / "run.json")
