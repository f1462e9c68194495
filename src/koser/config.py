"""Configuration: frozen pydantic models, TOML files and ``--set key=value``.

Each layer declares its own options as a `Config` beside the code they configure.
This module only knows how such models are overridden, refused and written back.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from koser.errors import ConfigError
from koser.files import write_atomically


class Config(BaseModel):
    """Base of every options model: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=Config)


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key that `model` accepts, in order of declaration."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += known_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def resolve_config(
    model: type[ConfigT],
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> ConfigT:
    """Build `model` from its defaults, then `base`, a TOML `file` and `overrides`.

    Parameters
    ----------
    model : type[Config]
        What to build.
    file : Path, optional
        TOML file with the same nesting as `model`.
    overrides : Sequence[str]
        ``"train.epochs=20"`` and the like; the value is read as TOML, and as a plain
        string where it is none.
    base : Mapping, optional
        Nested values that `file` and `overrides` take precedence over.

    Returns
    -------
    Config
        The resolved, validated options.

    Raises
    ------
    ConfigError
        If the file is missing or no TOML, an override has no ``=``, a key is unknown
        or a value is out of range.
    """
    values: dict[str, Any] = json.loads(json.dumps(dict(base or {})))
    if file is not None:
        merge_into(values, _read_toml(file))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"'--set {override}' is no KEY=VALUE. Write: --set train.epochs=20")
        merge_into(values, _nest(key.strip(), _parse_value(text.strip())))
    return build_config(model, values)


def build_config(model: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Validate nested `values` as `model`; every problem becomes part of one line."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        keys = known_keys(model)
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            if item["type"] == "extra_forbidden":
                problems.append(f"unknown key '{key}' (known: {', '.join(keys)})")
            else:
                problems.append(f"{key} = {item['input']!r}: {item['msg']}")
        raise ConfigError(f"Bad configuration: {'; '.join(problems)}.") from error


def write_toml(config: Config, path: Path) -> None:
    """Write `config` as TOML that `resolve_config` reads back to an equal model."""
    text = "\n".join(_toml_lines(config.model_dump(mode="json"))) + "\n"
    write_atomically(path, text.encode())


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"No configuration file at '{file}'. Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{file}' is not a TOML file: {error}.") from error


def _parse_value(text: str) -> Any:  # Any: a TOML value is whatever the user wrote
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    nested: dict[str, Any] = value
    return nested


def merge_into(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Put nested `values` over those of `into`, in place."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge_into(into[key], value)
        else:
            into[key] = value


def _toml_lines(values: Mapping[str, Any], table: str = "") -> Iterator[str]:
    # JSON's scalars and lists are valid TOML; what is None is left to its default.
    nested = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    for key, value in values.items():
        if key not in nested and value is not None:
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
    for key, value in nested.items():
        name = f"{table}.{key}" if table else key
        yield ""
        yield f"[{name}]"
        yield from _toml_lines(value, name)
