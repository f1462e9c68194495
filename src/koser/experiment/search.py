"""Which settings may be chosen, and what optuna proposes next after those that were tried.

A search has no state but the list of its trials, so one that is killed goes on as if it
had not been: every proposal is drawn from the trials before it and a seed of its own.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from koser.config import Config, ConfigT, known_keys, resolve_config
from koser.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import Trial as OptunaTrial

State = Literal["complete", "pruned", "refused"]
Direction = Literal["maximize", "minimize"]

_RANGE_KEYS = {"low", "high", "log", "step"}
# Trials drawn at random before the others guide the search, and before any is cut short.
_N_RANDOM = 5
# Draws in a row that were all tried before: the space has nothing new.
_N_DRAWS = 50


@dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Attributes
    ----------
    settings : Mapping[str, Any]
        Dotted keys of the configuration, and their values.
    state : {'complete', 'pruned', 'refused'}
        Pruned: stopped, because others were better by then. Refused: no configuration.
    scores : tuple[float, ...]
        Over all inner folds so far, after each of them.
    seconds : float
        Time taken.
    reason : str
        Why it was refused.
    """

    settings: Mapping[str, Any]
    state: State
    scores: tuple[float, ...] = ()
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class SearchSpace:
    """Settings, and what each may be.

    Attributes
    ----------
    ranges : Mapping[str, Any]
        By dotted key: a list of choices, or a mapping with ``low`` and ``high`` and
        perhaps ``log`` or ``step``. Integers as bounds mean integers.
    """

    ranges: Mapping[str, Any]
    _distributions: Mapping[str, BaseDistribution] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = {key: _distribution(key, values) for key, values in self.ranges.items()}
        object.__setattr__(self, "_distributions", found)

    @classmethod
    def read(cls, path: Path, config_class: type[Config]) -> SearchSpace:
        """Read a TOML file of ranges, whose keys are settings of `config_class`.

        Raises
        ------
        ConfigError
            If the file is missing or no TOML, names no or an unknown setting, or a range is none.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"Cannot read the space '{path}': {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"The search space '{path}' is not a TOML file: {error}.") from error
        ranges = dict(_flat(values))
        known = known_keys(config_class)
        if unknown := [key for key in ranges if key not in known]:
            raise ConfigError(
                f"The search space '{path}' names '{unknown[0]}', which the system does not have. "
                f"It has: {', '.join(known)}."
            )
        if not ranges:
            raise ConfigError(
                f"The search space '{path}' is empty. Write settings such as "
                f"train.learning_rate = {{low = 1e-4, high = 1e-2, log = true}}."
            )
        return cls(ranges)

    def configure(self, base: ConfigT, settings: Mapping[str, Any]) -> ConfigT:
        """`base` with `settings`.

        Raises
        ------
        ConfigError
            If they contradict each other.
        """
        return resolve_config(
            type(base),
            base=base.model_dump(mode="json"),
            overrides=[f"{key}={json.dumps(value)}" for key, value in settings.items()],
        )

    def settings_of(self, config: Config) -> dict[str, Any]:
        """What `config` has at the keys of the space."""
        values: dict[str, Any] = {}
        for key in self.ranges:
            value: Any = config.model_dump(mode="json")
            for part in key.split("."):
                if part not in value:
                    raise ConfigError(
                        f"The search space names '{key}', which nothing here would use: no member "
                        f"has it. Leave it out."
                    )
                value = value[part]
            values[key] = value
        return values

    def contains(self, settings: Mapping[str, Any]) -> bool:
        """Whether the search could propose `settings`."""
        return all(_holds(self.ranges[key], settings[key]) for key in self.ranges)

    def propose(
        self,
        trials: Sequence[Trial],
        *,
        first: Mapping[str, Any],
        direction: Direction,
        seed: Sequence[int],
    ) -> Proposal | None:
        """The settings to try next; None where the space has no other ones.

        Parameters
        ----------
        trials : Sequence[Trial]
            Those that were tried, in their order.
        first : Mapping[str, Any]
            What to try before anything else, if the space holds it.
        direction : {'maximize', 'minimize'}
            What is better.
        seed : Sequence[int]
            Of the search.
        """
        import optuna

        study = self._study(trials, direction)
        if not trials and self.contains(first):
            study.enqueue_trial(self._encode(first))
        tried = [dict(trial.settings) for trial in trials]
        for draw in np.random.SeedSequence([*seed, len(trials)]).generate_state(_N_DRAWS):
            study.sampler = optuna.samplers.TPESampler(n_startup_trials=_N_RANDOM, seed=int(draw))
            asked = study.ask(dict(self._distributions))
            settings = self._decode(asked.params)
            if settings not in tried:
                return Proposal(settings, asked)
        return None

    def _study(self, trials: Sequence[Trial], direction: Direction) -> Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction=direction, pruner=optuna.pruners.MedianPruner(n_startup_trials=_N_RANDOM)
        )
        states = {
            "complete": optuna.trial.TrialState.COMPLETE,
            "pruned": optuna.trial.TrialState.PRUNED,
            "refused": optuna.trial.TrialState.FAIL,
        }
        for trial in trials:
            study.add_trial(
                optuna.trial.create_trial(
                    state=states[trial.state],
                    params=self._encode(trial.settings),
                    distributions=dict(self._distributions),
                    value=trial.scores[-1] if trial.state != "refused" else None,
                    intermediate_values=dict(enumerate(trial.scores)),
                )
            )
        return study

    def _encode(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """As optuna keeps them: choices as text, because they may be lists."""
        return {
            key: json.dumps(settings[key]) if isinstance(values, list) else settings[key]
            for key, values in self.ranges.items()
        }

    def _decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: json.loads(params[key]) if isinstance(values, list) else params[key]
            for key, values in self.ranges.items()
        }


@dataclass(frozen=True)
class Proposal:
    """Settings to try, and whether to go on with them."""

    settings: dict[str, Any]
    _asked: OptunaTrial = field(repr=False)

    def is_hopeless(self, step: int, score: float) -> bool:
        """Whether other trials had a better median score after as many inner folds."""
        self._asked.report(score, step)
        return self._asked.should_prune()


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys; a table is a range where it has the keys of one, else a section."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and not _RANGE_KEYS & set(value):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _distribution(key: str, values: Any) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(values, list) and values:
        return CategoricalDistribution([json.dumps(value) for value in values])
    if isinstance(values, Mapping) and {"low", "high"} <= set(values) <= _RANGE_KEYS:
        is_whole = all(isinstance(values[end], int) for end in ("low", "high"))
        kind = IntDistribution if is_whole else FloatDistribution
        try:
            if not all(math.isfinite(value) for value in values.values()):
                raise ValueError("bounds must be finite")
            return kind(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The range of {key} is none: {error}") from error
    raise ConfigError(
        f"{key} = {values!r} is no range. Give choices as in [0.2, 0.4], or bounds as in "
        f"{{low = 1e-4, high = 1e-2, log = true}}."
    )


def _holds(values: Any, value: Any) -> bool:
    if isinstance(values, list):
        return value in values
    if not isinstance(value, int | float) or not values["low"] <= value <= values["high"]:
        return False
    steps = (value - values["low"]) / values["step"] if values.get("step") else 0.0
    return bool(abs(steps - round(steps)) < 1e-9)
