"""Killed, out of space, without rights, twice at once: what becomes of every long command.

A tiny synthetic corpus and tiny random models, because what counts is what is written and
when, not how long the mathematics takes. Every command is first run undisturbed. Then it is

* killed (SIGKILL to its process group) at seeded random moments, by the clock and around
  its writes, up to eight times in a row, and run again until it ends;
* run on a disk that is too small for it, and again with space;
* run where it may not write;
* run twice at once.

What is left must be equal to the undisturbed run's: every row, every stored array, every
weight and score to the last digit; only times, memory and command lines are left out.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import new_parser, print_heading, print_table, print_verdict

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))  # the fault harness

from faults.filling import Filled, fill  # noqa: E402
from faults.jobs import JOBS, Inputs, Job  # noqa: E402
from faults.killing import Campaign, Tally  # noqa: E402
from faults.launching import Launcher  # noqa: E402
from faults.making import make_inputs  # noqa: E402
from faults.refusing import Refused, forbid, run_twice  # noqa: E402

N_KILLS = {
    **{"prepare": 40, "split": 20, "predict": 20, "predict csv": 20, "report": 20},
    **{"train mfcc, 3 folds in 2 processes": 5, "train multimodal": 5},
}
N_KILLS_ELSE = 15
N_DISKS = 6
LEAST_KILLS = 200


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of every moment and every disk")
    parser.add_argument("--only", nargs="*", help="names of commands")
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    jobs = [job for job in JOBS if not arguments.only or job.name in arguments.only]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="koser-faults-") as name:
        folder = Path(name)
        (folder / "log").mkdir()
        with Launcher(folder / "log") as launcher:
            inputs = make_inputs(folder / "inputs", launcher)
            work = Work(launcher, inputs, folder / "work", arguments.seed, arguments.quick)
            tallies = [work.kill(job) for job in jobs]
            filled = [work.fill(job) for job in jobs]
            refused = [work.refuse(job) for job in jobs]
    report(tallies, filled, refused)
    print(f"taken: {(time.monotonic() - started) / 60:.0f} min")


class Work:
    """Everything is tried on one job after the other, in a folder that is emptied each time."""

    def __init__(
        self, launcher: Launcher, inputs: Inputs, folder: Path, seed: int, is_quick: bool
    ) -> None:
        self._launcher, self._inputs, self._folder = launcher, inputs, folder
        self._seed, self._is_quick = seed, is_quick

    def kill(self, job: Job) -> Tally:
        """Kill it, and tell so: this takes longest."""
        n_kills = 2 if self._is_quick else N_KILLS.get(job.name, N_KILLS_ELSE)
        tally = Campaign(self._launcher, self._inputs, self._empty(), self._seed).kill(job, n_kills)
        told = f"{job.name}: {tally.n_kills} kills, {len(tally.faults)} faults"
        print(told, file=sys.stderr, flush=True)
        return tally

    def fill(self, job: Job) -> Filled:
        """Let the disk end."""
        n_disks = 1 if self._is_quick else N_DISKS
        return fill(self._launcher, self._inputs, self._empty(), job, n_disks, seed=self._seed)

    def refuse(self, job: Job) -> Refused:
        """Take rights away; then start it twice at once."""
        found = forbid(self._launcher, self._inputs, self._empty(), job)
        found.faults += run_twice(self._launcher, self._inputs, self._empty(), job)
        return found

    def _empty(self) -> Path:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        return self._folder


def report(tallies: Sequence[Tally], filled: Sequence[Filled], refused: Sequence[Refused]) -> None:
    rows = [("command", "moments", "kills", "at writes", "lost", "twice", "faults")]
    for each in tallies:
        numbers = (each.n_moments, each.n_kills, each.n_at_writes, each.n_lost, each.n_duplicated)
        rows.append((each.job, *map(str, numbers), str(len(each.faults))))
    print_table(rows)
    print_table(
        [("too little space", "means", "disks", "refused", "faults")]
        + [
            (each.job, each.means, str(each.n_disks), str(each.n_refused), str(len(each.faults)))
            for each in filled
        ]
    )
    print_table(
        [("no rights; twice at once", "refused", "faults")]
        + [(each.job, str(each.n_refused), str(len(each.faults))) for each in refused]
    )
    faults = [
        f"{each.job}: {what}" for each in (*tallies, *filled, *refused) for what in each.faults
    ]
    for line in faults:
        print(f"fault  {line}")
    n_kills = sum(each.n_kills for each in tallies)
    n_wrong = sum(each.n_lost + each.n_duplicated for each in tallies)
    print_verdict(f"{n_kills} kills", f">= {LEAST_KILLS}", is_met=n_kills >= LEAST_KILLS)
    print_verdict(f"{n_wrong} rows lost or duplicated", "0", is_met=n_wrong == 0)
    print_verdict(f"{len(faults)} other differences", "0", is_met=not faults)


if __name__ == "__main__":
    main()
