"""Time of everything in ``metrics.json`` for a corpus of the document's size.

Invented answers to 44,000 utterances of 59 groups, seven labels, five votes each; nothing
is trained. Scores with their intervals, calibration, selective answers, subgroups, raters;
then a comparison of two systems.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import polars as pl

from koser.data.manifest import Manifest, Provenance, build_table
from koser.evaluation.comparison import compare_systems
from koser.evaluation.pairing import Answers
from koser.evaluation.scoring import Evaluation, evaluate
from koser.experiment.analysis import Tested, analyse
from koser.experiment.calibrating import ValPart
from koser.experiment.cost import Memory
from koser.experiment.members import Member, Outcome
from koser.labels import EMOTIONS
from koser.systems.system import Part
from koser.training.progress import Epoch, Fit
from measuring import (
    in_fresh_process,
    memory_mb,
    new_parser,
    print_heading,
    print_table,
    print_verdict,
)

ResultT = TypeVar("ResultT")
N_UTTERANCES, N_GROUPS, N_RATERS = 44_000, 59, 5
LIMIT = 10.0  # seconds


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_utterances = 2_000 if arguments.quick else N_UTTERANCES
    rows, peak = in_fresh_process(measure, n_utterances)
    print_table([(f"{n_utterances:,} utterances", "seconds"), *rows])
    total = sum(float(seconds) for _, seconds in rows)
    print(f"peak memory {peak:,.0f} MB, the invented data included")
    print_verdict(f"{total:.1f} s", f"< {LIMIT:g} s", is_met=total < LIMIT)


def measure(n_utterances: int) -> tuple[list[tuple[str, str]], float]:
    """Seconds of each part, and peak memory in MB."""
    rng = np.random.default_rng(0)
    manifest = invent(rng, n_utterances)
    tested = answer(rng, manifest)
    other = answer(rng, manifest)
    rows = []

    def timed(what: str, work: Callable[[], ResultT]) -> ResultT:
        started = time.perf_counter()
        result = work()
        rows.append((what, f"{time.perf_counter() - started:.2f}"))
        return result

    scores = timed("scores and intervals", lambda: score(tested))
    timed("calibration, selection, subgroups, raters", lambda: analyse(tested, scores))
    sides = [as_answers(name, each) for name, each in (("a", tested), ("b", other))]
    timed("comparison of two systems", lambda: compare_systems(*sides, labels=EMOTIONS))
    return rows, memory_mb("VmHWM")


def invent(rng: np.random.Generator, n_utterances: int) -> Manifest:
    groups = rng.integers(N_GROUPS, size=n_utterances)
    labels = rng.choice(EMOTIONS, n_utterances, p=[0.28, 0.1, 0.1, 0.09, 0.06, 0.34, 0.03])
    heard = rng.choice(EMOTIONS, (n_utterances, N_RATERS))
    agreed = rng.random((n_utterances, N_RATERS)) < 0.6
    table = build_table(
        {
            "id": f"u{row:06d}",
            "path": f"/invented/{row}.wav",
            "duration": float(2 + row % 9),
            "sampling_rate": 16_000,
            "n_channels": 1,
            "corpus": "invented",
            "label": str(labels[row]),
            "group": f"g{groups[row]:02d}",
            "gender": ("female", "male")[groups[row] % 2],
            "age": int(20 + 10 * (groups[row] % 4)),
            "release": f"r{groups[row] % 3}",
            "votes": [
                {"label": str(labels[row] if agrees else vote), "intensity": 1}
                for vote, agrees in zip(heard[row], agreed[row], strict=True)
            ],
        }
        for row in range(n_utterances)
    )
    provenance = Provenance(
        "invented", "/invented", EMOTIONS, "situation", "group(age×gender)", n_utterances
    )
    return Manifest(table, provenance).validate()


def answer(rng: np.random.Generator, manifest: Manifest) -> Tested:
    ids = np.searchsorted(EMOTIONS, manifest.table["label"].to_numpy())
    logits = 2 * rng.normal(size=(len(ids), len(EMOTIONS)))
    logits[np.arange(len(ids)), ids] += 2
    raw = np.exp(logits - logits.max(axis=1, keepdims=True))
    raw /= raw.sum(axis=1, keepdims=True)
    rows, val = np.arange(len(ids)), np.arange(0, len(ids), 10)
    outcome = Outcome(
        Member(0, Part(rows, val, rows, 42)),
        Fit((Epoch(1, 0.1, 1.0, 0.5, 1.0, 0.5, 0.5, 1.0),), 1),
        raw,
        0.0,
        0.0,
        Memory(0.0, None),
        ValPart.of(ids[val], raw[val]),
    )
    predicted = pl.Series("predicted", np.array(EMOTIONS)[raw.argmax(axis=1)])
    predictions = manifest.table.select("id", "label", predicted)
    clusters = manifest.table["group"].to_numpy()
    return Tested(manifest, predictions, raw, raw, clusters, [outcome])


def score(tested: Tested) -> Evaluation:
    return evaluate(
        tested.y_true,
        tested.calibrated,
        labels=EMOTIONS,
        clusters=tested.clusters,
        cluster_kind=tested.cluster_kind,
    )


def as_answers(name: str, tested: Tested) -> Answers:
    columns = [tested.predictions[each].to_numpy() for each in ("id", "label", "predicted")]
    return Answers(name, *columns, tested.clusters)


if __name__ == "__main__":
    main()
