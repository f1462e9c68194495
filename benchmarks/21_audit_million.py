"""An audit of a manifest of a million rows, without sound, in time and memory.

All sentences differ (5 to 9 words of a vocabulary of 8,000, frequent ones more often), which
is the dearest case: near-equal texts are looked for among a million. A new process reads the
manifest, splits it by speaker and audits it; wall time and peak memory, imports included.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from measuring import in_fresh_process, memory_mb, new_parser, print_heading, print_verdict

N_ROWS, N_SPEAKERS = 1_000_000, 2_000
LABELS = ("angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
TARGET_SECONDS, TARGET_MB = 300.0, 4_000.0


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n = 20_000 if arguments.quick else N_ROWS
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as folder:
        path = Path(folder) / "m.parquet"
        in_fresh_process(write_manifest, path, n)
        seconds, peak_mb, verdicts = in_fresh_process(audit, path)
    print(f"{n:,} rows: {verdicts}")
    print_verdict(
        f"audit of {n:,} rows in {seconds:.0f} s",
        f"< {TARGET_SECONDS:g} s",
        is_met=seconds < TARGET_SECONDS,
    )
    print_verdict(
        f"peak resident memory {peak_mb:,.0f} MB",
        f"< {TARGET_MB:,.0f} MB",
        is_met=peak_mb < TARGET_MB,
    )


def audit(path: Path) -> tuple[float, float, str]:
    started = time.perf_counter()
    from koser.data.audit.audit import audit_manifest
    from koser.data.manifest import Manifest
    from koser.data.splits import make_split

    manifest = Manifest.read(path)
    found = audit_manifest(manifest, make_split(manifest, "speaker"))
    verdicts = f"leaks {found.leakage}, confounds {found.confounds}"
    return time.perf_counter() - started, memory_mb("VmHWM"), verdicts


def write_manifest(path: Path, n: int) -> None:
    from koser.data.manifest import SCHEMA, Manifest, Provenance

    rng = np.random.default_rng(0)
    speaker = rng.integers(N_SPEAKERS, size=n)
    names = pl.Series("id", [f"u{number:07d}" for number in range(n)])
    given = {
        "id": names,
        "path": "/invented/" + names + ".wav",
        "duration": rng.uniform(1.3, 14.0, n),
        "sampling_rate": np.full(n, 16_000),
        "n_channels": np.ones(n),
        "label": pl.Series(LABELS).gather(rng.integers(len(LABELS), size=n)),
        "speaker": pl.Series([f"s{number:04d}" for number in range(N_SPEAKERS)]).gather(speaker),
        "release": pl.Series(["first", "second", "third"]).gather(speaker % 3),
        "gender": pl.Series(["female", "male"]).gather(speaker % 2),
        "age": 20 + speaker % 50,
        "text": pl.Series(invent_texts(n, rng)),
        "corpus": pl.repeat("invented", n, eager=True),
    }
    table = pl.DataFrame(
        {
            name: pl.Series(name, given[name]).cast(kind)
            if name in given
            else pl.Series(name, [None] * n, dtype=kind)
            for name, kind in SCHEMA.items()
        }
    )
    provenance = Provenance("invented", "/invented", LABELS, "given", "speaker", n)
    Manifest(table, provenance).write(path)


def invent_texts(n: int, rng: np.random.Generator, n_words: int = 8_000) -> list[str]:
    syllables = np.array([chr(0xAC00 + code) for code in range(0, 11_172, 7)])
    words = ["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(n_words)]
    frequency = 1.0 / np.arange(1, n_words + 1)
    lengths = rng.integers(5, 10, n)
    drawn = rng.choice(n_words, lengths.sum(), p=frequency / frequency.sum()).tolist()
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return [
        " ".join(words[word] for word in drawn[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]


if __name__ == "__main__":
    main()
