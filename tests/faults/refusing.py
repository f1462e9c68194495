"""Take rights away, or start a command twice at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from faults.jobs import Inputs, Job
from faults.kept import differences
from faults.launching import Command, Launcher
from faults.whole import half_written


@dataclass
class Refused:
    """What became of a job without rights.

    Attributes
    ----------
    job : str
        Its name.
    n_refused : int
        Refusals in one line.
    faults : list[str]
        Everything else.
    """

    job: str
    n_refused: int = 0
    faults: list[str] = field(default_factory=list)


def forbid(launcher: Launcher, inputs: Inputs, folder: Path, job: Job) -> Refused:
    """Run `job` where it may not write, and on inputs that it may not read."""
    refused = Refused(job.name)
    closed = folder / "closed"
    closed.mkdir()
    command = Command(job.arguments(inputs), closed, is_bound_by_rights=True)
    # What it reads first: a manifest, a corpus or a run.
    given = next(Path(each) for each in command.arguments if str(inputs.folder) in each)
    for path, mode in ((closed, 0o555), (given, 0o000)):
        before = path.stat().st_mode & 0o777
        path.chmod(mode)
        try:
            ending = launcher.run(command)
        finally:
            path.chmod(before)
        if ending.is_clear_refusal:
            refused.n_refused += 1
        else:
            refused.faults.append(f"'{path.name}' as {mode:o}: {ending.status}, {ending.stderr!r}")
        refused.faults += half_written(closed)
    again = launcher.run(command)
    if again.status != 0:
        refused.faults.append(f"with rights again: {again.status}, {again.stderr!r}")
    return refused


def run_twice(launcher: Launcher, inputs: Inputs, folder: Path, job: Job) -> list[str]:
    """Start `job` twice at once on the same outputs; what was not as if it had run once."""
    alone, together = folder / "alone", folder / "together"
    for each in (alone, together):
        each.mkdir()
    expected_ending = launcher.run(Command(job.arguments(inputs), alone))
    faults = [] if expected_ending.status == 0 else [expected_ending.stderr]
    both = Command(job.arguments(inputs), together)
    endings = launcher.run_together([both, both])
    finished = [each for each in endings if each.status == 0]
    if not finished:
        faults.append(f"twice at once, none ended: {[each.stderr for each in endings]!r}")
        return faults
    faults += [
        f"twice at once: {each.status}, {each.stderr!r}"
        for each in endings
        if each.status != 0 and not each.is_clear_refusal
    ]
    faults += [f"twice at once: {what}" for what in half_written(together)]
    faults += [
        f"twice at once: {what}" for what in differences(job.content(alone), job.content(together))
    ]
    return faults
