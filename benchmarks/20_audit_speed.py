"""An audit of 44,000 utterances with their sound.

The sound pass runs on real 48 kHz WAV files of 4.9 s, a tenth of the utterances, with a
process per core and an empty store. It runs on a sixth of them, then on the others: two timings
give the start of the processes, which counts once, and a file, which counts 44,000 times.
Everything else runs at full size: the search for copies over 44,000 fingerprints whose words
are drawn from those of real clips, so that many agree by chance, and all checks and probes of
a manifest of 44,000 rows with 37,000 texts under a speaker split. A second pass over the same
files measures what remembering saves.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np

from inputs import REPOSITORY, iter_clips
from koser.audio.fingerprint import SILENT, find_copies, fingerprint
from koser.audio.reading import load
from koser.audio.sound_facts import SoundFacts
from koser.data.audit.audit import audit_manifest
from koser.data.audit.sound import Sound
from koser.data.splits import make_split
from koser.demo import corpus_folder
from koser.engines.local import available_cores
from koser.features.extraction import Clip
from koser.features.sound_pass import listen
from measuring import new_parser, print_heading, print_table, print_verdict

sys.path.insert(0, str(REPOSITORY / "tests"))  # the tests' invented corpora

N_UTTERANCES = 44_000
SECONDS, RATE = 4.9, 48_000
TARGET_SECONDS = 120.0


def main() -> None:
    arguments = new_parser(__doc__).parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n = 2_000 if arguments.quick else N_UTTERANCES
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as folder:
        clips = write_clips(Path(folder), n // 10)
        few, many, again = time_listening(clips, Path(folder) / "store")
    # Both timings have the start of the processes; the second one has n_more more files.
    n_few = len(clips) // 6
    n_more = len(clips) - 2 * n_few
    each = (many - few) / n_more
    start = max(few - each * n_few, 0.0)
    listening, remembering = start + n * each, start + n * max(again - start, 0.0) / len(clips)
    prints = draw_fingerprints(n, rng)
    started = time.perf_counter()
    n_copies = len(find_copies(prints))
    matching = time.perf_counter() - started
    checks = time_checks(n, rng)
    rows = [
        ("part", "measured on", "seconds", f"for {n:,}"),
        ("start of the processes", "", f"{start:.1f}", f"{start:.1f}"),
        ("sound pass", f"{len(clips):,} files", f"{few + many:.1f}", f"{listening:.1f}"),
        ("search for copies", f"{n:,} clips", f"{matching:.1f}", f"{matching:.1f}"),
        ("checks and probes", f"{n:,} rows", f"{checks:.1f}", f"{checks:.1f}"),
        ("sound pass again", f"{len(clips):,} files", f"{again:.1f}", f"{remembering:.1f}"),
    ]
    print_table(rows)
    print(f"copies found among drawn fingerprints: {n_copies} (there are none)")
    total = listening + matching + checks
    print_verdict(
        f"audit of {n:,} utterances in {total:.0f} s on {available_cores()} cores",
        f"< {TARGET_SECONDS:g} s",
        is_met=total < TARGET_SECONDS,
    )


def write_clips(folder: Path, n_files: int) -> list[Clip]:
    clips = []
    for number, waveform in enumerate(iter_clips(n_files, seconds=SECONDS, sampling_rate=RATE)):
        path = folder / f"{number}.wav"
        path.write_bytes(wav_bytes(waveform))
        clips.append(Clip(str(path)))
    return clips


def time_listening(clips: list[Clip], store: Path) -> tuple[float, float, float]:
    """Seconds for a sixth of the clips, for the others, and for all of them again."""
    n_few = len(clips) // 6
    seconds = []
    for part in (clips[:n_few], clips[n_few:], clips):
        started = time.perf_counter()
        listen(part, store, n_workers=available_cores())
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1], seconds[2]


def wav_bytes(waveform: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes((32_767 * np.clip(waveform, -1, 1)).astype("<i2").tobytes())
    return file.getvalue()


def draw_fingerprints(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    paths = sorted(corpus_folder().glob("*.flac"))
    pool = np.concatenate([fingerprint(load(path), 16_000) for path in paths])
    pool = pool[pool[:, 0] != SILENT]
    return [rng.choice(pool, rng.integers(60, 160)) for _ in range(n)]


def time_checks(n: int, rng: np.random.Generator) -> float:
    from fixtures.audits import clean_rows
    from fixtures.manifests import manifest

    rows = clean_rows(n_speakers=59, n_each=4 * round(n / 59 / 4))
    texts = [row["text"] for row in rows]
    for row, number in zip(
        rows, rng.integers(round(0.85 * len(rows)), size=len(rows)), strict=True
    ):
        row["text"] = texts[number]
    made = manifest(rows)
    facts = [
        SoundFacts(rng.bytes(16), *rng.normal(size=3).tolist(), np.zeros((0, 2), np.uint32))
        for _ in rows
    ]
    split = make_split(made, "speaker")
    started = time.perf_counter()
    audit_manifest(made, split, Sound(facts, {}))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
