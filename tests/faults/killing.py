"""Kill commands at random moments, go on, and compare with a run that nothing befell."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from faults.jobs import Inputs, Job
from faults.kept import differences, lost_and_duplicated
from faults.launching import Command, Ending, Launcher
from faults.whole import half_written

# A job may be killed so often before it is let through.
MOST_KILLS_A_TRIAL = 8
# Part of the kills that come at a write rather than by the clock.
SHARE_AT_WRITES = 0.6
# How long after a moment, in seconds: in the middle of what follows it.
LONGEST_DELAY = 0.02


@dataclass
class Tally:
    """What became of a job's kills.

    Attributes
    ----------
    n_trials, n_kills : int
        Trials, and kills in all of them together; `n_at_writes` of these at a write.
    n_lost, n_duplicated : int
        Rows and arrays that were missing, or there twice, in the end.
    faults : list[str]
        Everything that was not as in the undisturbed run, with the trial's number.
    """

    job: str
    n_trials: int = 0
    n_kills: int = 0
    n_at_writes: int = 0
    n_lost: int = 0
    n_duplicated: int = 0
    n_moments: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Campaign:
    """Everything that trials share.

    Attributes
    ----------
    launcher : Launcher
        Runs commands.
    inputs : Inputs
        What commands are given.
    folder : Path
        Where trials are run; emptied after each.
    seed : int
        Decides every moment.
    """

    launcher: Launcher
    inputs: Inputs
    folder: Path
    seed: int = 0

    def kill(self, job: Job, n_kills: int) -> Tally:
        """Kill `job` until it was killed `n_kills` times, in as many trials as that takes."""
        command = Command(job.arguments(self.inputs), self.folder / "undisturbed")
        undisturbed = self._undisturbed(command)
        expected = job.content(command.folder)
        tally = Tally(job.name, n_moments=undisturbed.n_moments, seconds=undisturbed.seconds)
        rng = np.random.default_rng([self.seed, *job.name.encode()])
        while tally.n_kills < n_kills:
            wanted = min(n_kills - tally.n_kills, int(rng.integers(1, MOST_KILLS_A_TRIAL + 1)))
            n_before = tally.n_kills
            self._trial(job, tally, rng, wanted, undisturbed, expected)
            if tally.n_kills == n_before and tally.n_trials > 20 * n_kills:
                tally.faults.append("it ends before it can be killed")
                break
        shutil.rmtree(command.folder)
        return tally

    def _undisturbed(self, command: Command) -> Ending:
        command.folder.mkdir(parents=True)
        ending = self.launcher.run(command)
        if ending.status != 0:
            raise RuntimeError(f"{command.arguments} ended with {ending.status}: {ending.stderr}")
        return ending

    def _trial(
        self,
        job: Job,
        tally: Tally,
        rng: np.random.Generator,
        n_wanted: int,
        undisturbed: Ending,
        expected: dict[str, object],
    ) -> None:
        tally.n_trials += 1
        folder = self.folder / f"trial-{tally.n_trials:03d}"
        folder.mkdir()
        arguments = job.arguments(self.inputs)

        def fault(what: str) -> None:
            tally.faults.append(f"trial {tally.n_trials}, {tally.n_kills} kills so far: {what}")

        for number in range(n_wanted):
            doomed = choose_moment(Command(arguments, folder), undisturbed, rng)
            ending = self.launcher.run(doomed)
            arguments = (*job.arguments(self.inputs), *job.again)
            for what in half_written(folder):
                fault(what)
            if not ending.was_killed:
                if ending.status != 0:
                    fault(f"resumed, status {ending.status}: {ending.stderr}")
                    return
                if number == 0:
                    arguments = job.arguments(self.inputs)
                break
            tally.n_kills += 1
            tally.n_at_writes += doomed.kill_at is not None
        else:
            ending = self.launcher.run(Command(arguments, folder))
            if ending.status != 0:
                fault(f"resumed, status {ending.status}: {ending.stderr}")
                return
        actual = job.content(folder)
        for what in differences(expected, actual):
            fault(what)
        left = [path.name for path in folder.rglob("*") if path.name.endswith(".partial")]
        if left:
            fault(f"left behind: {', '.join(left)}")
        lost, duplicated = lost_and_duplicated(expected, actual)
        tally.n_lost += lost
        tally.n_duplicated += duplicated
        shutil.rmtree(folder)


def choose_moment(command: Command, undisturbed: Ending, rng: np.random.Generator) -> Command:
    """`command`, to be killed at a moment of its life or at a write."""
    if rng.random() < SHARE_AT_WRITES:
        delay = 0.0 if rng.random() < 0.5 else float(rng.uniform(0, LONGEST_DELAY))
        moment = int(rng.integers(1, undisturbed.n_moments + 1))
        return replace(command, kill_at=moment, delay=delay)
    return replace(command, kill_after=float(rng.uniform(0, undisturbed.seconds)))
