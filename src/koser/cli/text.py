"""``koser transcribe``: fill the transcript cache, and take its content out."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from koser.cli.engines import (
    Address,
    BatchRows,
    EngineChoice,
    EngineKind,
    WorkerCpus,
    WorkerGpus,
    engine_options,
)
from koser.cli.options import (
    ConfigFile,
    ManifestPlace,
    Overrides,
    Quiet,
    Store,
    Whisper,
    Workers,
)

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.


def transcribe(
    manifest: ManifestPlace,
    whisper: Whisper = None,
    language: Annotated[
        str | None,
        typer.Option(help="ISO 639-1; by default the manifest's, and ko where it has none."),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(help="short: the clip and some silence. full: padded to 30 s, as published."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Write id → text here (.json), or every column (.csv); may be a URL."),
    ] = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    store: Store = None,
    workers: Workers = None,
    engine: EngineChoice = EngineKind.local,
    address: Address = None,
    worker_cpus: WorkerCpus = None,
    worker_gpus: WorkerGpus = None,
    batch_rows: BatchRows = None,
    quiet: Quiet = False,
) -> None:
    """Transcribe every utterance; interrupted and run again, it goes on."""
    from koser.data.manifest import Manifest
    from koser.engines.choosing import opened_engine
    from koser.experiment.request import resolve_settings
    from koser.experiment.transcription import check_target, transcribe, write_transcripts
    from koser.features.store import default_store_root
    from koser.terminal import notes_shown, print_transcription, progress_bars

    given = {"language": language, "context": context}
    chosen = [f'whisper.{key}="{value}"' for key, value in given.items() if value is not None]
    settings = resolve_settings(
        "multimodal", file=config, overrides=[*(set_ or ()), *chosen], whisper=whisper
    )
    if out is not None:
        check_target(out)
    loaded = Manifest.read(manifest)
    options = engine_options(engine, workers, address, worker_cpus, worker_gpus, batch_rows)
    with notes_shown(), opened_engine(options) as where, progress_bars(quiet=quiet) as listeners:
        started = time.perf_counter()
        found = transcribe(
            loaded,
            settings,
            store_root=store or default_store_root(),
            engine=where,
            progress=listeners.on_clip,
        )
    print_transcription(found, time.perf_counter() - started, float(loaded.table["duration"].sum()))
    if out is not None:
        write_transcripts(loaded, found, out)
        typer.echo(f"Transcripts: {out}")
    failed = [each for each in found.transcripts if each.error]
    for each in failed[:5]:
        typer.echo(f"Error: {each.error}", err=True)
    if failed:
        typer.echo(f"{len(failed)} of {len(loaded)} could not be transcribed.", err=True)
        raise typer.Exit(1)
