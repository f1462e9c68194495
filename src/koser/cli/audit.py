"""The command that looks for leaks and confounds: ``koser audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koser.cli.options import (
    Folds,
    Language,
    ManifestPlace,
    Quiet,
    ScriptFolds,
    Seed,
    Store,
    TestFraction,
    ValFraction,
    Workers,
    split_options,
)

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.


def audit(
    manifest: ManifestPlace,
    split: Annotated[
        str | None,
        typer.Option(help="Protocol (see `koser split --help`), or a kept split, to be checked."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit status 1 if a check of leaks warns or fails, or a confound fails.",
        ),
    ] = False,
    no_audio: Annotated[
        bool, typer.Option("--no-audio", help="Do not read the sound: the manifest alone.")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(help="Speech encoder (hub id or folder) that compares voices: a hint."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.html.")] = None,
    split_seed: Seed = 42,
    test_fraction: TestFraction = 0.2,
    val_fraction: ValFraction = 0.1,
    folds: Folds = None,
    script_folds: ScriptFolds = None,
    report_language: Language = "ko",
    workers: Workers = None,
    store: Store = None,
    quiet: Quiet = False,
) -> None:
    """Look for what would make a score too good: shared speakers, texts, copies, confounds."""
    from koser.data.manifest import Manifest
    from koser.data.splits import resolve_split
    from koser.engines.local import available_cores
    from koser.experiment.audit import AuditOptions, run_audit, write_audit
    from koser.features.store import default_store_root
    from koser.reporting.language import load_phrases
    from koser.terminal import bar, notes_shown
    from koser.terminal.audit import print_audit

    load_phrases(report_language)  # refused before the work
    loaded = Manifest.read(manifest)
    chosen = None
    if split is not None:
        options = split_options(split_seed, test_fraction, val_fraction, folds, script_folds)
        chosen = resolve_split(loaded, split, options)
    with notes_shown(), bar("clips", quiet=quiet) as on_clip:
        found = run_audit(
            loaded,
            chosen,
            AuditOptions(
                store_root=store or default_store_root(),
                with_audio=not no_audio,
                encoder=encoder,
                n_workers=workers or available_cores(),
                on_clip=on_clip,
            ),
        )
    if out is not None:
        write_audit(found, out, report_language)
    print_audit(found, out)
    if strict and found.is_violated:
        raise typer.Exit(1)
