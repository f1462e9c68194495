"""From what a user asked for to an `Experiment` and its folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from koser.config import resolve_config
from koser.data.arrangement import load_arranged
from koser.data.manifest import Manifest
from koser.data.splits import Split, SplitOptions, make_split
from koser.errors import ConfigError, RunError
from koser.experiment.run import Experiment
from koser.systems import system_class

RUNS = Path("runs")


@dataclass(frozen=True)
class TrainRequest:
    """A training as a user words it.

    Attributes
    ----------
    model : str
        Name of a system.
    split : str
        A protocol, ``fixed:LIST``, or the file of a split that was kept.
    manifest, data : Path, optional
        A manifest, or a folder ``<label>/*.wav``; exactly one of them.
    split_options : SplitOptions
        Of a protocol; a kept split has its own.
    config_file : Path, optional
        TOML with settings of the system.
    overrides : tuple[str, ...]
        ``key=value`` settings that go before the file's.
    seed, n_seeds : int
        The first training seed, and how many are run.
    """

    model: str
    split: str
    manifest: Path | None = None
    data: Path | None = None
    split_options: SplitOptions = field(default_factory=SplitOptions)
    config_file: Path | None = None
    overrides: tuple[str, ...] = ()
    seed: int = 42
    n_seeds: int = 1

    def resolve(self) -> Experiment:
        """Read, split and configure.

        Raises
        ------
        KoserError
            If anything asked for is missing, unknown or contradicts itself.
        """
        if self.n_seeds < 1:
            raise ConfigError(f"--seeds {self.n_seeds}: at least one training is needed.")
        config_class = system_class(self.model).config_class
        config = resolve_config(config_class, file=self.config_file, overrides=self.overrides)
        if self.manifest is not None and self.data is None:
            manifest = Manifest.read(self.manifest)
        elif self.data is not None and self.manifest is None:
            manifest = load_arranged(self.data)
        else:
            raise ConfigError("Give either --manifest M.parquet or --data FOLDER.")
        return Experiment(
            model=self.model,
            config=config,
            manifest=manifest,
            split=resolve_split(manifest, self.split, self.split_options),
            seeds=tuple(range(self.seed, self.seed + self.n_seeds)),
        )


def resolve_split(manifest: Manifest, split: str, options: SplitOptions) -> Split:
    """The split that `split` names: a file that was kept, or a protocol to apply."""
    if split.endswith(".parquet") and not split.startswith("fixed:"):
        return Split.read(Path(split)).check(manifest)
    return make_split(manifest, split, options)


def choose_folder(experiment: Experiment, out: Path | None, *, resume: bool) -> Path:
    """The run folder: `out`, a new one under ``runs/``, or the newest unfinished one there.

    Raises
    ------
    RunError
        If there is nothing to resume.
    """
    if out is not None:
        return out
    if not resume:
        return new_folder(experiment.name)
    unfinished = [
        folder
        for folder in sorted(RUNS.glob(f"{experiment.name}_*"))
        if (folder / "run.json").exists() and not (folder / "metrics.json").exists()
    ]
    if not unfinished:
        raise RunError(
            f"No unfinished run {RUNS / experiment.name}_* to resume. Leave --resume out."
        )
    return unfinished[-1]


def new_folder(name: str) -> Path:
    """``runs/<name>_<time>``."""
    return RUNS / f"{name}_{time.strftime('%Y%m%d-%H%M%S')}"
