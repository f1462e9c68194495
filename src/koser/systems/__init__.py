"""The systems that are compared, one file each, and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koser.errors import ConfigError

if TYPE_CHECKING:
    from koser.systems.system import System

# Ends the name of a checkpoint's system where it gives valence and arousal.
DIMENSIONAL = ":dimensions"
SYSTEM_NAMES = (
    "mfcc",
    "wav2vec2",
    "wav2vec2ft",
    "multimodal",
    "prosody",
    "fusion",
    "ensemble",
)


def system_class(name: str) -> type[System]:
    """The class of the system called `name`.

    Raises
    ------
    ConfigError
        If there is none.
    """
    # Each is imported when it is asked for: a system's libraries are needed by it alone.
    if name == "mfcc":
        from koser.systems.mfcc import MfccSystem

        return MfccSystem
    if name == "wav2vec2":
        from koser.systems.wav2vec2 import Wav2Vec2System

        return Wav2Vec2System
    if name == "wav2vec2ft":
        from koser.systems.wav2vec2ft import Wav2Vec2FtSystem

        return Wav2Vec2FtSystem
    if name == "multimodal":
        from koser.systems.multimodal import MultimodalSystem

        return MultimodalSystem
    if name == "prosody":
        from koser.systems.prosody import ProsodySystem

        return ProsodySystem
    if name == "fusion":
        from koser.systems.fusion import FusionSystem

        return FusionSystem
    if name == "ensemble":
        from koser.systems.ensemble import EnsembleSystem

        return EnsembleSystem
    if name.endswith(DIMENSIONAL):
        raise ConfigError(
            f"This is a model of valence and arousal ({name}): it gives values, not labels. "
            f"`koser predict` and `koser serve` take it; in Python, koser.load_regressor."
        )
    raise ConfigError(f"No system is called '{name}'. Systems: {', '.join(SYSTEM_NAMES)}.")
