"""The systems that are compared, one file each, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koser.errors import ConfigError

if TYPE_CHECKING:
    from koser.systems.system import System

SYSTEM_NAMES = ("mfcc",)


def system_class(name: str) -> type[System]:
    """The class of the system called `name`.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name == "mfcc":
        from koser.systems.mfcc import MfccSystem

        return MfccSystem
    raise ConfigError(f"No system is called '{name}'. Systems: {', '.join(SYSTEM_NAMES)}.")
