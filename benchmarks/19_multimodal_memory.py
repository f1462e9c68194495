"""One model at a time: resident memory while 24 real Korean clips become features.

Whisper-base and multilingual-e5-small (REAL), in a new process; what koser logs of it.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np

from encoders import real_text_model, real_whisper_ct2
from inputs import add_corpus_option, real_corpus
from koser.config import resolve_config
from koser.data.corpora import prepare
from koser.data.manifest import Manifest
from koser.errors import one_line_errors
from koser.systems.multimodal import MultimodalConfig, MultimodalSystem
from measuring import in_fresh_process, memory_mb, new_parser, print_heading


def main() -> None:
    parser = new_parser(__doc__)
    add_corpus_option(parser, "emotiontts")
    parser.add_argument("--whisper", help="folder or size; Whisper-base if not given")
    parser.add_argument("--text-model", help="hub id or folder; multilingual-e5-small if not given")
    arguments = parser.parse_args()
    root = real_corpus(arguments, "emotiontts")
    print_heading(__doc__, is_quick=arguments.quick)
    settings = (
        f'whisper.name="{real_whisper_ct2(arguments.whisper)}"',
        *real_text_model(arguments.text_model),
    )
    n_clips = 4 if arguments.quick else 24
    for line in in_fresh_process(extract, root, settings, n_clips):
        print(line)


def extract(root: Path, settings: tuple[str, ...], n_clips: int) -> list[str]:
    """What the log says of memory, and the peak of the whole process."""
    whole = prepare("emotiontts", root, {})
    kept = whole.table.head(n_clips)
    left_out = whole.provenance.left_out
    provenance = whole.provenance.__class__(
        **{**whole.provenance.__dict__, "n_rows_in": len(kept) + len(left_out)}
    )
    manifest = Manifest(kept, provenance).validate()
    lines = [f"before: {memory_mb('VmRSS') / 1e3:.2f} GB resident"]
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("koser.features.residence").addHandler(handler)
    logging.getLogger("koser").setLevel(logging.INFO)
    config = resolve_config(MultimodalConfig, overrides=list(settings))
    with tempfile.TemporaryDirectory() as folder:
        MultimodalSystem.extract(
            manifest, config, train_rows=np.arange(n_clips), store_root=Path(folder)
        )
    lines.append(
        f"after: {memory_mb('VmRSS') / 1e3:.2f} GB, peak {memory_mb('VmHWM') / 1e3:.2f} GB"
    )
    return lines


if __name__ == "__main__":
    with one_line_errors():
        main()
