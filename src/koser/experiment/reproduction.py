"""The document's experiments in one go: five systems by speaker, the second one also at random.

Everything is a run folder below one folder, so whatever was finished is not repeated, and
what was killed goes on. There is no state beside the folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koser.config import known_keys
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions
from koser.errors import ConfigError
from koser.experiment.request import TrainRequest
from koser.experiment.series import FinishedRun, write_gaps
from koser.reporting.comparison import RunComparison, compare_runs
from koser.reporting.report import ReportOptions
from koser.storage.places import Place
from koser.systems import SYSTEM_NAMES, system_class

MODELS = ("mfcc", "wav2vec2", "wav2vec2ft", "multimodal")
WHISPERS = ("small", "medium")
BASELINE = "mfcc_speaker"
# The system whose two splits show what a split alone gives away.
_BOTH_SPLITS = "wav2vec2"


@dataclass(frozen=True)
class ReproduceRequest:
    """The document's experiments as a user words them.

    Attributes
    ----------
    data : Path, optional
    manifest : Place, optional
        A folder ``<label>/*.wav``, or a manifest; exactly one of them.
    models : tuple[str, ...]
        Which of `MODELS`.
    encoder, text_model : str, optional
        Hub ids or folders of pretrained models, for the systems that have them.
    whispers : tuple[str, ...]
        One multimodal system is made with each.
    overrides : tuple[str, ...]
        ``key=value`` settings for every system that has the key; ``MODEL:key=value`` for
        one.
    split_options : SplitOptions
        Of both splits.
    seed, n_seeds : int
        The first training seed, and how many are run.
    """

    data: Path | None = None
    manifest: Place | None = None
    models: tuple[str, ...] = MODELS
    encoder: str | None = None
    text_model: str | None = None
    whispers: tuple[str, ...] = WHISPERS
    overrides: tuple[str, ...] = ()
    split_options: SplitOptions = field(default_factory=SplitOptions)
    seed: int = 42
    n_seeds: int = 1


@dataclass(frozen=True)
class Planned:
    """One run of the reproduction.

    Attributes
    ----------
    name : str
        Of its folder.
    request : TrainRequest
        What is trained.
    """

    name: str
    request: TrainRequest


def plan(request: ReproduceRequest) -> list[Planned]:
    """The runs, in the document's order.

    Raises
    ------
    ConfigError
        If a model is unknown, a setting belongs to no system, or nothing is left to run.
    """
    unknown = [model for model in request.models if model not in MODELS]
    if unknown:
        raise ConfigError(
            f"--models {','.join(unknown)}: the document's systems are {', '.join(MODELS)}."
        )
    if not request.models:
        raise ConfigError(f"--models names no system. The document's are {', '.join(MODELS)}.")
    _refuse_unused(request)
    planned = []
    for model in MODELS:
        if model not in request.models:
            continue
        for whisper in request.whispers if model == "multimodal" else (None,):
            variant = model if whisper is None else f"{model}-{Path(whisper).name}"
            for split in ("random", "speaker") if model == _BOTH_SPLITS else ("speaker",):
                train = TrainRequest(
                    model=model,
                    split=split,
                    manifest=request.manifest,
                    data=request.data,
                    split_options=request.split_options,
                    overrides=_overrides(model, request.overrides),
                    encoder=request.encoder if _has(model, "encoder.name") else None,
                    whisper=whisper,
                    text_model=request.text_model if _has(model, "text.name") else None,
                    seed=request.seed,
                    n_seeds=request.n_seeds,
                )
                planned.append(Planned(f"{variant}_{split}", train))
    return planned


def read_manifest(request: ReproduceRequest) -> Manifest:
    """The utterances, which all runs share.

    Raises
    ------
    KoserError
        If they cannot be read, or are not given exactly once.
    """
    model = request.models[0]
    return TrainRequest(model, "", manifest=request.manifest, data=request.data).read_manifest()


def compare_finished(out: Path, finished: Mapping[str, FinishedRun]) -> RunComparison | None:
    """The document's results table; None where fewer than two systems were run by speaker.

    Parameters
    ----------
    out : Path
        Folder of the run folders.
    finished : Mapping[str, FinishedRun]
        By the names that `plan` gave.
    """
    names = [name for name in finished if name.endswith("_speaker")]
    if len(names) < 2:
        return None
    baseline = BASELINE if BASELINE in names else names[0]
    return compare_runs([out / name for name in names], baseline=out / baseline)


def write_gap(
    out: Path, finished: Mapping[str, FinishedRun], *, report: ReportOptions | None = None
) -> dict[str, Any] | None:
    """``gap.json``: what the random split gives away; None where one of the two is missing."""
    names = [f"{_BOTH_SPLITS}_{split}" for split in ("random", "speaker")]
    if not all(name in finished for name in names):
        return None
    return write_gaps([finished[name] for name in names], out / "gap.json", report=report)


def _overrides(model: str, overrides: Sequence[str]) -> tuple[str, ...]:
    """Those that belong to a system."""
    kept = []
    for override in overrides:
        key, _, value = override.partition("=")
        owner, colon, name = key.rpartition(":")
        if (colon and owner == model) or (not colon and _has(model, name.strip())):
            kept.append(f"{name}={value}")
    return tuple(kept)


def _refuse_unused(request: ReproduceRequest) -> None:
    """Refuse a setting that would change nothing."""
    for override in request.overrides:
        used = [model for model in request.models if _overrides(model, [override])]
        if not used:
            raise ConfigError(
                f"'--set {override}' belongs to none of {', '.join(request.models)}. Write "
                f"KEY=VALUE for all systems that have the key, MODEL:KEY=VALUE for one."
            )


def _has(model: str, key: str) -> bool:
    return model in SYSTEM_NAMES and key in known_keys(system_class(model).config_class)
