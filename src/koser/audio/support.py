"""Which sounds this machine can read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec

import soundfile

# What corpora and phones come with, in libsndfile's names.
WANTED = ("WAV", "FLAC", "OGG", "MP3", "AIFF", "W64")


@dataclass(frozen=True)
class SoundSupport:
    """What reads sound here.

    Attributes
    ----------
    version : str
        Of libsndfile.
    missing : tuple[str, ...]
        Of `WANTED`, what this libsndfile was built without.
    has_av : bool
        Whether PyAV is there, for M4A, MP4 and WebM.
    ffmpeg : str or None
        Where the program is; koser never calls it, but error messages name it.
    """

    version: str
    missing: tuple[str, ...]
    has_av: bool
    ffmpeg: str | None


def sound_support() -> SoundSupport:
    """Look at libsndfile, PyAV and ffmpeg."""
    known = soundfile.available_formats()
    return SoundSupport(
        version=str(soundfile.__libsndfile_version__),
        missing=tuple(name for name in WANTED if name not in known),
        has_av=find_spec("av") is not None,
        ffmpeg=shutil.which("ffmpeg"),
    )
