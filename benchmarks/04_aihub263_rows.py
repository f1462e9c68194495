"""AI Hub 263 at full size: manifest and splits of 43,991 rows.

The raw folder is invented (the corpus may not be passed on): the tests' fixture writes
its three releases with all rows and tiny WAV files; texts, ages and genders are drawn
here so that they repeat as the corpus's do. A new process then prepares the manifest and
makes two splits of it; its wall time, imports included, and its peak memory count. There
is no plain way to compare with: the reference implementation has no manifest.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from inputs import REPOSITORY
from measuring import (
    in_fresh_process,
    memory_mb,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
)

TARGET_SECONDS = 60.0
TARGET_MB = 1000.0

# Of the corpus: rows that repeat another's text, texts that are repeated, groups.
REPEATED_ROWS, REPEATED_TEXTS = 6_990, 802
N_GROUPS = 59
N_ORPHANS = 16  # rows without audio, and as many audio files without a row


@dataclass(frozen=True)
class Step:
    """What a process had spent after a step, since its first import."""

    name: str
    seconds: float
    peak_mb: float


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as folder:
        n_rows = write_raw_folder(Path(folder), scale=0.02 if arguments.quick else 1.0)
        steps = in_fresh_process(prepare_and_split, Path(folder))
    print(f"{n_rows:,} rows, {n_rows - N_ORPHANS:,} of them with audio")
    rows = [("after", "seconds", "peak MB")]
    rows += [(step.name, f"{step.seconds:.1f}", f"{step.peak_mb:.0f}") for step in steps]
    print_table(rows)
    seconds, peak_mb = steps[-1].seconds, steps[-1].peak_mb
    print_verdict(
        f"prepare and two splits in {seconds:.1f} s",
        f"< {TARGET_SECONDS:g} s",
        is_met=seconds < TARGET_SECONDS,
    )
    print_verdict(
        f"peak resident memory {peak_mb:.0f} MB",
        f"< {TARGET_MB:g} MB",
        is_met=peak_mb < TARGET_MB,
    )


def prepare_and_split(root: Path) -> list[Step]:
    started = time.perf_counter()
    steps = []

    def note(name: str) -> None:
        steps.append(Step(name, time.perf_counter() - started, memory_mb("VmHWM")))

    from koser.data.corpora import aihub263
    from koser.data.splits import make_split

    note("imports")
    manifest = aihub263.prepare(root)
    note("prepare")
    for protocol in ("speaker", "speaker+script"):
        make_split(manifest, protocol)
        note(f"split {protocol}")
    return steps


def write_raw_folder(root: Path, *, scale: float) -> int:
    """Write the folder and return its number of rows."""
    fixture = load_fixture()
    sizes = [round(scale * size) for size in fixture.OFFICIAL_SIZES]
    rows = fixture.invent_rows(sizes)
    rng = np.random.default_rng(0)
    texts = invent_texts(len(rows), scale, rng)
    people = invent_people(len(rows), rng)
    rows = [
        row.but(text=text, age=age, gender=gender)
        for row, text, (age, gender) in zip(rows, texts, people, strict=True)
    ]
    silent = {row.wav_id for row in rows[:N_ORPHANS]}
    fixture.write_corpus(root, rows, silent=silent, n_strays=N_ORPHANS)
    return len(rows)


def load_fixture() -> ModuleType:
    path = REPOSITORY / "tests" / "fixtures" / "aihub263.py"
    spec = importlib.util.spec_from_file_location("aihub263_fixture", path)
    if spec is None or spec.loader is None:
        sys.exit(f"Error: '{path}' is not there. Run this from a checkout with its tests.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def invent_texts(n_rows: int, scale: float, rng: np.random.Generator) -> list[str]:
    """Sentences of 5 to 9 invented words, frequent ones more often.

    As many repeat as in the corpus, and every third is another one with a word changed.
    """
    n_repeated = round(scale * REPEATED_TEXTS)
    n_distinct = n_rows - round(scale * REPEATED_ROWS) + n_repeated
    syllables = np.array([chr(0xAC00 + code) for code in range(0, 11_172, 7)])
    words = ["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(8_000)]
    frequency = 1.0 / np.arange(1, len(words) + 1)
    frequency /= frequency.sum()
    distinct: list[str] = []
    for number in range(n_distinct):
        if number % 3 == 2:
            sentence = distinct[rng.integers(number)].split()
            sentence[rng.integers(len(sentence))] = words[rng.integers(len(words))]
        else:
            sentence = rng.choice(words, rng.integers(5, 10), p=frequency).tolist()
        distinct.append(" ".join(sentence))
    again = rng.integers(n_repeated, size=n_rows - n_distinct)
    texts = distinct + [distinct[index] for index in again]
    return [texts[index] for index in rng.permutation(n_rows)]


def invent_people(n_rows: int, rng: np.random.Generator) -> Sequence[tuple[int, str]]:
    """Age and gender of each row, six rows in a row the same; two groups hold 41 %."""
    groups = [(20 + number // 2, ("female", "male")[number % 2]) for number in range(N_GROUPS)]
    shares = np.full(N_GROUPS, 0.59 / (N_GROUPS - 2))
    shares[[groups.index((46, "female")), groups.index((48, "female"))]] = 0.41 / 2
    drawn = np.repeat(rng.choice(N_GROUPS, -(-n_rows // 6), p=shares), 6)[:n_rows]
    return [groups[index] for index in drawn]


if __name__ == "__main__":
    main()
