"""Whisper on 200 real Korean clips: padded to 30 s, and on the clip with some silence.

Real-time factor (seconds of work per second of speech) and character error rate, which
jiwer computes on letters and digits alone. All ways decode with the same beam in one run.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import jiwer
import numpy as np

from encoders import real_whisper_ct2
from inputs import add_corpus_option, real_corpus
from koser.audio.reading import load
from koser.data.corpora import prepare
from koser.engines.local import available_cores
from koser.errors import one_line_errors
from koser.features.text.transcriber import Transcriber
from koser.features.text.whisper import WhisperOptions, find_whisper
from measuring import cpu_seconds, new_parser, print_heading, print_table, print_verdict

TARGET_RATIO, TARGET_POINTS = 4.0, 0.5
SILENCES = (1.0, 2.0, 3.0, 5.0)


def main() -> None:
    parser = new_parser(__doc__)
    add_corpus_option(parser, "emotiontts")
    parser.add_argument("--whisper", help="folder or size; Whisper-base if not given")
    parser.add_argument("--beam", type=int, default=5, help="beam size of all ways")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    table = prepare("emotiontts", root, {}).table.sort("id")
    table = table[::25] if arguments.quick else table
    waveforms = [load(path) for path in table["path"]]
    name = real_whisper_ct2(arguments.whisper)
    print(f"{len(table)} clips, {table['duration'].sum():.0f} s; Whisper: {Path(name).name}")
    ways: dict[str, Callable[[], list[str]]] = {
        "faster-whisper as it comes": lambda: plain(name, arguments.beam, waveforms),
        "koser, full": lambda: ours(waveforms, name=name, beam_size=arguments.beam, context="full"),
    }
    silences = (3.0,) if arguments.quick else SILENCES
    for seconds in silences:
        ways[f"koser, short + {seconds:g} s"] = lambda seconds=seconds: ours(
            waveforms, name=name, beam_size=arguments.beam, silence_seconds=seconds
        )
    rows, figures = [("", "RTF", "cores", "CER")], {}
    for way, transcribe in ways.items():
        started, cpu = time.perf_counter(), cpu_seconds()
        texts = transcribe()
        seconds = time.perf_counter() - started
        factor = seconds / float(table["duration"].sum())
        error = error_rate(table["text"].to_list(), texts)
        figures[way] = (factor, error)
        cores = (cpu_seconds() - cpu) / seconds
        rows.append((way, f"{factor:.3f}", f"{cores:.1f}", f"{100 * error:.2f} %"))
        print(f"{way}: {seconds:.0f} s", flush=True)
    print_table(rows)
    default = figures["koser, short + 3 s"]
    for rival in list(ways)[:2]:
        ratio = figures[rival][0] / default[0]
        points = 100 * (default[1] - figures[rival][1])
        print_verdict(
            f"short + 3 s: {ratio:.1f} times as fast as {rival}, CER {points:+.2f} points",
            f">= {TARGET_RATIO:g} times at <= +{TARGET_POINTS:g}",
            is_met=ratio >= TARGET_RATIO and points <= TARGET_POINTS,
        )


def plain(name: str, beam_size: int, waveforms: list[np.ndarray]) -> list[str]:
    """faster-whisper with its own defaults, clip by clip."""
    from faster_whisper import WhisperModel

    model = WhisperModel(name, device="cpu", compute_type="float32", cpu_threads=available_cores())
    texts = []
    for waveform in waveforms:
        segments, _ = model.transcribe(waveform, language="ko", beam_size=beam_size)
        texts.append(" ".join(segment.text.strip() for segment in segments))
    return texts


def ours(waveforms: list[np.ndarray], **options: object) -> list[str]:
    """koser, with what its guards believe."""
    chosen = WhisperOptions(device="cpu", **options)
    transcriber = Transcriber(find_whisper(chosen).load(), "ko")
    return [each.usable_text or "" for each in transcriber.transcribe(waveforms)]


def error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Characters wrong per character said, without blanks and punctuation."""
    cleaned = (
        [re.sub(r"[\W_]", "", unicodedata.normalize("NFC", text)) for text in texts]
        for texts in (references, hypotheses)
    )
    return float(jiwer.cer(*cleaned))


if __name__ == "__main__":
    with one_line_errors():
        main()
