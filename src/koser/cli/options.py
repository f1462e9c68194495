"""Options that several commands have, and what they mean in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from koser.systems import SYSTEM_NAMES

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.

SYSTEMS = ", ".join(SYSTEM_NAMES)

# What may be a URL too is a str here: a Path would lose a slash of it.
ManifestPlace = Annotated[str, typer.Argument(help="Manifest made by `koser prepare`, or its URL.")]
Seed = Annotated[int, typer.Option(help="Seed of the split.")]
TestFraction = Annotated[float, typer.Option(help="Wanted share of the test part.")]
ValFraction = Annotated[
    float, typer.Option(help="Wanted share of the val part; 0 for none (fixed epochs).")
]
Folds = Annotated[
    int | None,
    typer.Option("--folds", help="Folds of kfold or session, or of speakers in speaker+script."),
]
ScriptFolds = Annotated[int | None, typer.Option(help="Folds of scripts in speaker+script.")]
Workers = Annotated[int | None, typer.Option(help="Processes; by default one per core.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Setting, as in train.epochs=20.")
]
Encoder = Annotated[
    str | None,
    typer.Option(help="Pretrained speech encoder: hub id or folder, for a system that has one."),
]
Language = Annotated[str, typer.Option("--report-language", help="Language of reports: ko or en.")]
AudioClips = Annotated[
    int,
    typer.Option(
        min=0,
        help="How many of the worst mistakes can be heard in the report. None by default: most "
        "corpora's terms forbid passing recordings on, and a report is easily mailed.",
    ),
]
Whisper = Annotated[
    str | None,
    typer.Option(
        help="Whisper, for a system that reads transcripts: a size (tiny … large-v3), a hub id, "
        "or a folder."
    ),
]
TextModel = Annotated[
    str | None,
    typer.Option(help="BERT-like model, for a system that reads transcripts: hub id or folder."),
]
Members = Annotated[
    str | None,
    typer.Option(help="Systems of an ensemble, as in wav2vec2,fusion,mfcc."),
]
Store = Annotated[
    Path | None, typer.Option(help="Folder of the feature stores; else $KOSER_CACHE.")
]


def report_options(language: str, audio_clips: int) -> Any:  # ReportOptions; see above
    """How reports are written, if koser speaks that language."""
    from koser.reporting.language import load_phrases
    from koser.reporting.report import ReportOptions

    return ReportOptions(load_phrases(language).language, audio_clips)


def split_options(
    seed: int,
    test_fraction: float,
    val_fraction: float,
    folds: int | None,
    script_folds: int | None,
) -> Any:  # SplitOptions, which is not imported at the top: see there
    """The options of a split as they were given."""
    from koser.config import build_config
    from koser.data.splits import SplitOptions

    return build_config(
        SplitOptions,
        {
            "seed": seed,
            "test_fraction": test_fraction,
            "val_fraction": val_fraction,
            "n_folds": folds,
            "n_script_folds": script_folds,
        },
    )
