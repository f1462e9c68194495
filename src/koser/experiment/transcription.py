"""Transcripts ahead of training, and as files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError, StorageError
from koser.features.extraction import Progress
from koser.features.text.transcription import Transcription
from koser.storage.places import Place, is_url, name_of
from koser.storage.writing import check_target as refuse_target
from koser.storage.writing import writing
from koser.systems.fused_data import transcribe_manifest, transcriptions_json

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


def check_target(path: Place) -> None:
    """Refuse a file that transcripts cannot be written to, before the work.

    Raises
    ------
    ConfigError
        If its name ends otherwise than ``.json`` or ``.csv``, or its folder is missing.
    StorageError
        If it is a URL that nothing can be written to.
    """
    if name_of(path).suffix not in (".json", ".csv"):
        raise ConfigError(f"--out {path}: give a name that ends in .json or .csv.")
    if is_url(path):
        refuse_target(str(path))
    elif not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"--out {path}: there is no folder '{Path(path).parent}'. Make it first.")


def write_transcripts(manifest: Manifest, transcription: Transcription, path: Place) -> None:
    """Write transcripts by utterance: id → text as JSON, or every column as CSV.

    In JSON a text that is not to be believed is null; in CSV it is there, with its status.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    StorageError
        If the object cannot be.
    """
    ids = manifest.table["id"].to_list()
    try:
        if name_of(path).suffix == ".json":
            with writing(path) as partial:
                partial.write_bytes(transcriptions_json(ids, transcription.texts))
            return
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for name, each in zip(ids, transcription.transcripts, strict=True):
            values = (each.text, each.status.value, each.avg_logprob, each.no_speech_prob)
            writer.writerow([name, *values, each.context, each.error])
        with writing(path) as partial:
            partial.write_bytes(buffer.getvalue().encode())
    except StorageError:
        raise
    except OSError as error:
        raise ConfigError(f"Cannot write '{path}': {error.strerror}.") from error
