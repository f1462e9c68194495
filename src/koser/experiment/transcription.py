"""Transcripts ahead of training, and as files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError
from koser.features.extraction import Progress
from koser.features.text.transcription import Transcription
from koser.files import write_atomically
from koser.systems.multimodal_data import transcribe_manifest, write_transcriptions

_COLUMNS = ("id", "text", "status", "avg_logprob", "no_speech_prob", "context", "error")


def transcribe(
    manifest: Manifest,
    config: Any,  # a MultimodalConfig, whose `whisper` counts
    *,
    store_root: Path,
    engine: Engine = SERIAL,
    progress: Progress | None = None,
) -> Transcription:
    """Transcribe a manifest as the multimodal system would."""
    return transcribe_manifest(
        manifest, config.whisper, store_root=store_root, engine=engine, progress=progress
    )


def check_target(path: Path) -> None:
    """Refuse a file that transcripts cannot be written to, before the work.

    Raises
    ------
    ConfigError
        If its name ends otherwise than ``.json`` or ``.csv``, or its folder is missing.
    """
    if path.suffix not in (".json", ".csv"):
        raise ConfigError(f"--out {path}: give a name that ends in .json or .csv.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--out {path}: there is no folder '{path.parent}'. Make it first.")


def write_transcripts(manifest: Manifest, transcription: Transcription, path: Path) -> None:
    """Write transcripts by utterance: id → text as JSON, or every column as CSV.

    In JSON a text that is not to be believed is null; in CSV it is there, with its status.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    ids = manifest.table["id"].to_list()
    try:
        if path.suffix == ".json":
            write_transcriptions(ids, transcription.texts, path)
            return
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for name, each in zip(ids, transcription.transcripts, strict=True):
            values = (each.text, each.status.value, each.avg_logprob, each.no_speech_prob)
            writer.writerow([name, *values, each.context, each.error])
        write_atomically(path, buffer.getvalue().encode())
    except OSError as error:
        raise ConfigError(f"Cannot write '{path}': {error.strerror}.") from error
