"""From what a user asked for to an `Experiment` and its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from koser.config import Config, known_keys, resolve_config
from koser.data.arrangement import load_arranged
from koser.data.combining import combine
from koser.data.enrolment import EnrolmentOptions, hold_out_enrolment, is_enrolled
from koser.data.manifest import Manifest
from koser.data.nesting import restrict
from koser.data.splits import Split, SplitOptions, is_kept, resolve_split
from koser.errors import ConfigError, RunError
from koser.experiment.folder import differences, is_finished
from koser.experiment.run import Experiment
from koser.experiment.starting import read_start, refuse_leaks
from koser.experiment.tuning import Tuning
from koser.storage.places import Place
from koser.systems import SYSTEM_NAMES, system_class
from koser.systems.presets import preset_settings
from koser.systems.starting import check_start

RUNS = Path("runs")
# Options that name a pretrained model: the setting of each, and what it is.
_MODELS = {
    "encoder": ("encoder.name", "encoder"),
    "whisper": ("whisper.name", "Whisper"),
    "text-model": ("text.name", "text model"),
}


@dataclass(frozen=True)
class TrainRequest:
    """A training as a user words it.

    Attributes
    ----------
    model : str
        Name of a system.
    split : str
        A protocol, ``fixed:LIST``, or the file of a split that was kept.
    manifest : Place, optional
    data : Path, optional
        A manifest, or a folder ``<label>/*.wav``; exactly one of them.
    more_manifests : tuple[Place, ...]
        Manifests of other corpora, to train on all together: see `koser.data.combining`.
    split_options : SplitOptions
        Of a protocol; a kept split has its own.
    config_file : Path, optional
        TOML with settings of the system.
    overrides : tuple[str, ...]
        ``key=value`` settings that go before the file's.
    encoder, whisper, text_model : str, optional
        Hub id or folder of a pretrained model (or a size of Whisper), for a system that has
        one of the kind.
    members : str, optional
        Names of an ensemble's systems, with commas between them.
    seed, n_seeds : int
        The first training seed, and how many are run.
    tuning : Tuning, optional
        Settings that are chosen in each fold.
    init : Path, optional
        A trained model of the same system to start from.
    preset : str, optional
        Settings of fine-tuning by the memory of the GPU; file and overrides go before them.
    enrol : int, optional
        Utterances of each tested person that are heard first: see `koser.data.enrolment`.
    """

    model: str
    split: str
    manifest: Place | None = None
    data: Path | None = None
    more_manifests: tuple[Place, ...] = ()
    split_options: SplitOptions = field(default_factory=SplitOptions)
    config_file: Path | None = None
    overrides: tuple[str, ...] = ()
    encoder: str | None = None
    whisper: str | None = None
    text_model: str | None = None
    members: str | None = None
    seed: int = 42
    n_seeds: int = 1
    tuning: Tuning | None = None
    init: Path | None = None
    preset: str | None = None
    enrol: int | None = None

    def resolve(self) -> Experiment:
        """Read, split and configure.

        Raises
        ------
        KoserError
            If anything asked for is missing, unknown or contradicts itself.
        """
        config = self._settings()  # a wrong setting is refused before anything is read
        return self._experiment(config, self.read_manifest())

    def resolve_on(self, manifest: Manifest, *, whole: Manifest | None = None) -> Experiment:
        """Split and configure on a manifest that was read already; raises as `resolve`.

        Where `manifest` has only some rows of `whole`, a kept split is of the whole one.
        """
        return self._experiment(self._settings(), manifest, whole)

    def _settings(self) -> Config:
        if self.n_seeds < 1:
            raise ConfigError(f"--seeds {self.n_seeds}: at least one training is needed.")
        enrolled = [] if self.enrol is None else [self._enrol_override(self.enrol)]
        return resolve_settings(
            self.model,
            file=self.config_file,
            overrides=[*with_members(self.model, self.members, self.overrides), *enrolled],
            encoder=self.encoder,
            whisper=self.whisper,
            text_model=self.text_model,
            preset=self.preset,
        )

    def _enrol_override(self, k: int) -> str:
        """The setting that ``--enrol`` means."""
        key = "enrolment.k"
        if not _has_key(self.model, key):
            having = [each for each in SYSTEM_NAMES if _has_key(each, key)]
            raise ConfigError(
                f"System '{self.model}' does not adapt to speakers, so --enrol {k} would change "
                f"nothing. Systems that do: {', '.join(having)}."
            )
        for override in self.overrides:
            if override.partition("=")[0].strip() == key:
                raise ConfigError(
                    f"--enrol {k} and --set {override} name the utterances twice. Give one."
                )
        return f"{key}={k}"

    def read_manifest(self) -> Manifest:
        """The utterances; raises as `resolve`."""
        if self.manifest is not None and self.data is None:
            paths = (self.manifest, *self.more_manifests)
            return combine([Manifest.read(path) for path in paths])
        if self.data is not None and self.manifest is None:
            return load_arranged(self.data)
        raise ConfigError("Give either --manifest M.parquet or --data FOLDER.")

    def _experiment(
        self, config: Config, manifest: Manifest, whole: Manifest | None = None
    ) -> Experiment:
        split = self.split_of(config, manifest, whole)
        start = None
        if self.init is not None:
            start = read_start(self.init, self.model)
            config = check_start(start, self.model, config)
            refuse_leaks(start, self.init, manifest, split)
        return Experiment(
            model=self.model,
            config=system_class(self.model).settle(config, manifest, split),
            manifest=manifest,
            split=split,
            seeds=tuple(range(self.seed, self.seed + self.n_seeds)),
            tuning=self.tuning,
            start=start,
        )

    def split_of(self, config: Config, manifest: Manifest, whole: Manifest | None = None) -> Split:
        """Who plays which part, less what may be heard of the tested persons first.

        Raises
        ------
        KoserError
            As `resolve`.
        """
        if whole is not None and is_kept(self.split):
            split = restrict(resolve_split(whole, self.split, self.split_options), manifest)
        else:
            split = resolve_split(manifest, self.split, self.split_options)
        options = getattr(config, "enrolment", EnrolmentOptions())
        if options.k is not None:
            if self.tuning is not None:
                raise ConfigError(
                    "koser tune chooses settings without enrolment. Leave enrolment.k out, and "
                    "give what was chosen to koser train --enrol."
                )
            return hold_out_enrolment(split, manifest, options)
        if is_enrolled(split.protocol):
            raise ConfigError(
                f"The split is of the protocol '{split.protocol}'. Give the split that it was "
                f"made from, with --enrol K."
            )
        return split


def resolve_settings(
    model: str,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    encoder: str | None = None,
    whisper: str | None = None,
    text_model: str | None = None,
    preset: str | None = None,
) -> Config:
    """The configuration of a system as a user words it.

    Parameters
    ----------
    model : str
        Name of a system.
    file : Path, optional
        TOML with settings.
    overrides : Sequence[str]
        ``key=value`` settings that go before the file's.
    encoder, whisper, text_model : str, optional
        Hub id or folder of a pretrained model; goes before the file's. A folder is made
        absolute, so that the configuration means the same from another folder.
    preset : str, optional
        What file and overrides go before; see `koser.systems.presets`.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range, the system has no model of the kind, or
        `overrides` name another one.
    """
    config_class = system_class(model).config_class
    given = {"encoder": encoder, "whisper": whisper, "text-model": text_model}
    chosen = [
        _model_override(model, flag, name, overrides)
        for flag, name in given.items()
        if name is not None
    ]
    base = preset_settings(preset, model)
    return resolve_config(config_class, file=file, overrides=[*overrides, *chosen], base=base)


def _model_override(model: str, flag: str, name: str, overrides: Sequence[str]) -> str:
    """The setting that an option such as ``--encoder`` means."""
    key, what = _MODELS[flag]
    if not _has_key(model, key):
        having = [each for each in SYSTEM_NAMES if _has_key(each, key)]
        raise ConfigError(
            f"System '{model}' has no {what}, so --{flag} {name} would change nothing. "
            f"Systems that have one: {', '.join(having) or 'none'}."
        )
    if any(override.partition("=")[0].strip() == key for override in overrides):
        raise ConfigError(f"--{flag} {name} and --set {key}=… name the {what} twice. Give one.")
    folder = Path(name).expanduser()
    found = str(folder.resolve()) if folder.is_dir() else name
    # In quotes, because a name may look like a number.
    return f"{key}={json.dumps(found, ensure_ascii=False)}"


def with_members(model: str, members: str | None, overrides: Sequence[str]) -> list[str]:
    """Settings of a system, and what ``--members`` means beside them, if it is given.

    Raises
    ------
    ConfigError
        If the system has no members, or they are named twice.
    """
    if members is None:
        return list(overrides)
    if not _has_key(model, "members"):
        raise ConfigError(
            f"System '{model}' has no members, so --members {members} would change nothing. Leave "
            f"it out, or train --model ensemble."
        )
    if any(override.partition("=")[0].strip() == "members" for override in overrides):
        raise ConfigError(f"--members {members} and --set members=… name them twice. Give one.")
    names = [name.strip() for name in members.split(",")]
    return [*overrides, f"members={json.dumps(names)}"]


def _has_key(model: str, key: str) -> bool:
    return key in known_keys(system_class(model).config_class)


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
        if (folder / "run.json").exists() and not is_finished(folder)
    ]
    if not unfinished:
        raise RunError(
            f"No unfinished run {RUNS / experiment.name}_* to resume. Leave --resume out."
        )
    # One with other settings only if there is no better: it is then refused, with the differences.
    same = [folder for folder in unfinished if _is_run_of(experiment, folder)]
    return (same or unfinished)[-1]


def _is_run_of(experiment: Experiment, folder: Path) -> bool:
    try:
        return not differences(experiment, folder)
    except RunError:  # its run.json cannot be read
        return False


def new_folder(name: str) -> Path:
    """``runs/<name>_<time>``."""
    return RUNS / f"{name}_{time.strftime('%Y%m%d-%H%M%S')}"
