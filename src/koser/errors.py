"""The errors koser raises: one root, one child per thing that can be wrong.

Every message says what is wrong, with its values, then why if that is not
obvious, then the next step. The command line prints exactly that one line.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Import name of an optional package -> the extra that installs it.
EXTRA_OF_MODULE = {
    "torch": "train",
    "matplotlib": "train",
    "koreanize_matplotlib": "train",
    "jinja2": "train",
    "optuna": "tune",
    "transformers": "speech",
    "peft": "speech",
    "safetensors": "speech",
    "av": "av",
    "huggingface_hub": "hub",
    "fastapi": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
    "onnxruntime": "onnx",
    "onnx": "onnx",
    "faster_whisper": "stt",
    "ctranslate2": "stt",
    "ray": "ray",
    "pyarrow": "ray",
    "swift_f0": "prosody",
    "fsspec": "cloud",
    "s3fs": "cloud",
}

_FULL = "Free some space and run the command again (koser train with --resume)."
_FORBIDDEN = "Ask the owner, or run as somebody who may; then run the command again."
_BROKEN = "Check the disk or the connection to it, then run the command again."
# What the machine may refuse at any moment -> the way out. Other errors of the operating
# system are mistakes of koser's own, and keep their traceback.
_WAY_OUT = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.EIO: _BROKEN,
    errno.ESTALE: _BROKEN,
    errno.ENOTCONN: _BROKEN,
    errno.ETIMEDOUT: _BROKEN,
    errno.EMFILE: "Raise the number of open files (ulimit -n), or give fewer --workers.",
    errno.ENFILE: "Close other programs, or give fewer --workers.",
    errno.ENOMEM: "Close other programs, or give fewer --workers.",
}


class KoserError(Exception):
    """Root of every error koser raises on purpose."""


class ConfigError(KoserError, ValueError):
    """A setting is unknown, malformed or out of range."""


class LabelError(KoserError, ValueError):
    """A label is not one the corpus or the task knows."""


class AudioError(KoserError, ValueError):
    """An audio file is missing, unreadable or holds no usable sound."""


class UnreadableError(AudioError):
    """Some of many audio files cannot be read; the others have been.

    Parameters
    ----------
    message : str
        How many, and the first of them.
    reasons : Mapping[int, str]
        What is wrong with each, by its place among all.
    """

    def __init__(self, message: str, reasons: Mapping[int, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


class NoSpeechError(AudioError):
    """Nobody speaks in a sound that is to tell a voice."""


class AudioFetchError(AudioError):
    """The bytes of a remote audio file cannot be had now; nothing is known of its sound."""


class CorpusError(KoserError, ValueError):
    """A corpus folder is not what its adapter expects."""


class DownloadError(KoserError, OSError):
    """A corpus cannot be fetched, or what came is not what its authors publish."""


class ManifestError(KoserError, ValueError):
    """A manifest is missing, malformed or contradicts itself."""


class SplitError(KoserError, ValueError):
    """A split cannot be made or does not belong to the manifest."""


class UndefinedMetricError(KoserError, ValueError):
    """A score has no value on this data."""


class EncoderError(KoserError, ValueError):
    """A pretrained model cannot be loaded, or is not what is needed."""


class StoreError(KoserError, OSError):
    """A feature store is damaged, locked or cannot be written."""


class StorageError(KoserError, OSError):
    """Object storage cannot be used as it is set up: driver, credentials, bucket, network."""


class ObjectError(StorageError):
    """One object cannot be read or written; others may be."""


class MissingObjectError(ObjectError):
    """There is no such object."""


class CheckpointError(KoserError, ValueError):
    """A checkpoint or run folder is missing, damaged or of another kind."""


class ComparisonError(KoserError, ValueError):
    """Results cannot be put side by side."""


class RunError(KoserError, ValueError):
    """A training run cannot start, resume or finish."""


class ResultsError(KoserError, OSError):
    """A folder of results holds something else, is in use, or cannot be written."""


class EngineError(KoserError, RuntimeError):
    """Workers cannot be had, or die whatever they are given."""


def describe_missing_module(error: ModuleNotFoundError) -> str | None:
    """One line on how to install the extra that `error` asks for.

    Parameters
    ----------
    error : ModuleNotFoundError
        What an import inside koser raised.

    Returns
    -------
    str or None
        The line, or None where the module belongs to no extra of koser.
    """
    extra = EXTRA_OF_MODULE.get((error.name or "").split(".")[0])
    if extra is None:
        return None
    return f"This needs '{error.name}', which is not installed. Run: pip install 'koser[{extra}]'"


def describe_system_error(error: OSError) -> str | None:
    """One line on what the machine refused and what to do about it.

    Parameters
    ----------
    error : OSError
        What the operating system said.

    Returns
    -------
    str or None
        The line, or None where the machine is not to blame.
    """
    way_out = _WAY_OUT.get(error.errno or 0)
    if way_out is None:
        return None
    where = "" if error.filename is None else f" ('{error.filename}')"
    return f"{error.strerror}{where}. What was finished is kept. {way_out}"


@contextmanager
def one_line_errors(*, debug: bool = False) -> Iterator[None]:
    """End the program with one line on standard error and status 1 on a refusal.

    koser's own, or one of the machine: a full disk, rights, a broken disk.

    Parameters
    ----------
    debug : bool
        Show the traceback instead.
    """
    try:
        yield
    except (KoserError, ModuleNotFoundError, OSError) as error:
        line = str(error)
        if isinstance(error, ModuleNotFoundError):
            line = describe_missing_module(error) or ""
        elif not isinstance(error, KoserError):
            line = describe_system_error(error) or ""
        if debug or not line:
            raise
        print(f"Error: {' '.join(line.split())}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as error:
        if debug:
            raise
        print("Interrupted. What was finished is kept.", file=sys.stderr)
        raise SystemExit(130) from error
