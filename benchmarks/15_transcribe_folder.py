"""A whole folder of real Korean clips to transcriptions.json, as a user types it.

`koser prepare` and `koser transcribe` in new processes: start, hashing, voice activity,
Whisper, cache and output are all in the time. Then once more, with everything in the cache.
The plain way is a script that loops over the files with faster-whisper, same model, beam and
precision.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from encoders import real_whisper_ct2
from inputs import add_corpus_option, real_corpus
from koser.data.manifest import Manifest
from koser.errors import one_line_errors
from koser.evaluation.transcripts import character_error_rate
from measuring import new_parser, print_heading, print_table, print_verdict

TARGET_RATIO, TARGET_POINTS = 4.0, 0.5
PLAIN = """
import json, os, sys
from faster_whisper import WhisperModel
name, listing, out = sys.argv[1:]
model = WhisperModel(
    name, device="cpu", compute_type="float32", cpu_threads=len(os.sched_getaffinity(0))
)
texts = {}
for id, path in json.load(open(listing)).items():
    segments, _ = model.transcribe(path, language="ko", beam_size=5)
    texts[id] = " ".join(segment.text.strip() for segment in segments)
json.dump(texts, open(out, "w"), ensure_ascii=False)
"""


def main() -> None:
    parser = new_parser(__doc__)
    add_corpus_option(parser, "emotiontts")
    parser.add_argument("--whisper", help="folder or size; Whisper-base if not given")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    if arguments.quick:
        root = next(root.rglob("emotional-to-emotional")) / "nea"
    name = real_whisper_ct2(arguments.whisper)
    rows, figures = [("", "seconds", "RTF", "CER")], {}
    with tempfile.TemporaryDirectory(prefix="koser-bench-") as temporary:
        folder = Path(temporary)
        corpus = ("folder", root) if arguments.quick else ("emotiontts", root)
        run(folder, "-m", "koser", "prepare", *corpus, "--out", "m.parquet")
        table = Manifest.read(folder / "m.parquet").table
        paths = dict(zip(table["id"], table["path"], strict=True))
        (folder / "paths.json").write_text(json.dumps(paths), encoding="utf-8")
        ways = {"faster-whisper in a loop": ("-c", PLAIN, name, "paths.json", "t.json")}
        for context in ("full", "short"):
            command = ("-m", "koser", "transcribe", "m.parquet", "--whisper", name)
            command += ("--context", context, "--out", "t.json")
            ways |= {context: command, f"{context}, again": command}
        for way, command in ways.items():
            seconds = run(folder, *command)
            factor = seconds / float(table["duration"].sum())
            error = error_rate(table, folder / "t.json")
            figures[way] = (seconds, error)
            shown = "-" if error is None else f"{100 * error:.2f} %"
            rows.append((way, f"{seconds:.1f}", f"{factor:.3f}", shown))
    print(f"{len(table)} clips, {table['duration'].sum():.0f} s; Whisper: {Path(name).name}")
    print_table(rows)
    for rival in ("faster-whisper in a loop", "full"):
        ratio = figures[rival][0] / figures["short"][0]
        if figures[rival][1] is None:
            return
        points = 100 * (figures["short"][1] - figures[rival][1])
        print_verdict(
            f"short: {ratio:.1f} times as fast as {rival} end to end, CER {points:+.2f} points",
            f">= {TARGET_RATIO:g} times at <= +{TARGET_POINTS:g}",
            is_met=ratio >= TARGET_RATIO and points <= TARGET_POINTS,
        )


def run(folder: Path, *arguments: object) -> float:
    """Seconds that Python takes with these arguments."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "KOSER_CACHE": str(folder / "cache")},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def error_rate(table: object, path: Path) -> float | None:
    """Of what was written; None where the corpus's own text is not known."""
    texts = dict(zip(table["id"], table["text"], strict=True))
    if None in texts.values():
        return None
    heard = json.loads(path.read_text(encoding="utf-8"))
    return character_error_rate(list(texts.values()), [heard[name] or "" for name in texts])


if __name__ == "__main__":
    with one_line_errors():
        main()
