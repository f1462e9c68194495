"""Where sound lies while it is handled: files without a name, in memory or on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import numpy as np

from koser.audio.reading import SAMPLING_RATE
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig

_IN_MEMORY = 8 * 2**20  # bytes; more lie on disk
_BLOCK = 30 * SAMPLING_RATE  # samples


class Buffered:
    """How many bytes of sound the server holds, and how many it may.

    Parameters
    ----------
    config : ServeConfig
        The limit.
    metrics : Metrics
        Where they are shown.
    """

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._n_bytes = 0

    def add(self, n_bytes: int) -> None:
        """Take up `n_bytes`.

        Raises
        ------
        ProblemError
            If they would be too many.
        """
        limit = self._config.max_buffered_bytes
        if self._n_bytes + n_bytes > limit:
            raise ProblemError(
                "busy",
                f"{self._n_bytes} bytes of sound are being handled; {n_bytes} more would exceed "
                f"{limit}. Try again later.",
                {"Retry-After": str(self._config.retry_after)},
            )
        self._n_bytes += n_bytes
        self._metrics.buffered_bytes.set(self._n_bytes)

    def remove(self, n_bytes: int) -> None:
        """Give `n_bytes` back."""
        self._n_bytes -= n_bytes
        self._metrics.buffered_bytes.set(self._n_bytes)


class Spool:
    """A nameless file for one upload, and one for its waveform; both vanish when it is closed.

    Parameters
    ----------
    buffered : Buffered
        Where its bytes are counted.
    max_bytes : int
        Most that an upload may have.
    expected_bytes : int or None
        How many will come, if that is known.
    max_seconds : float
        Of its waveform.
    """

    def __init__(
        self,
        buffered: Buffered,
        *,
        max_bytes: int,
        expected_bytes: int | None,
        max_seconds: float,
    ) -> None:
        self._buffered = buffered
        self._max_bytes = max_bytes
        self._n_counted = 0
        self.max_seconds = max_seconds
        self.n_bytes = 0
        self.n_samples = 0
        self.upload = _nameless_file(expected_bytes)
        try:
            self.waveform = _nameless_file(int(max_seconds * SAMPLING_RATE * 4))
        except OSError:
            os.close(self.upload)
            raise

    def write(self, chunk: bytes) -> None:
        """Append `chunk` to the upload.

        Raises
        ------
        ProblemError
            If it exceeds a limit.
        """
        if self.n_bytes + len(chunk) > self._max_bytes:
            raise too_large(self._max_bytes)
        self._count(len(chunk))
        self.n_bytes += len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self.upload, view) :]

    def set_decoded(self, n_samples: int) -> None:
        """Note that the file of the waveform now has `n_samples` samples.

        Raises
        ------
        ProblemError
            If the server cannot hold as much.
        """
        self._count(4 * n_samples)
        self.n_samples = n_samples

    def read_waveform(self, first: int = 0, n_samples: int | None = None) -> np.ndarray:
        """Read the waveform or a part of it [shape=(n_samples,)]."""
        n_left = self.n_samples - first
        waveform = np.empty(n_left if n_samples is None else min(n_left, n_samples), np.float32)
        view = memoryview(waveform).cast("B")  # type: ignore[arg-type]  # NumPy has it at run time
        position = 0
        while position < len(view):
            n_read = os.preadv(self.waveform, [view[position:]], 4 * first + position)
            if not n_read:
                raise EOFError(f"{len(view)} bytes of sound expected, {position} found")
            position += n_read
        return waveform

    @property
    def duration(self) -> float:
        """Seconds of the waveform."""
        return self.n_samples / SAMPLING_RATE

    def iter_blocks(self) -> Iterator[np.ndarray]:
        """Yield the waveform in pieces of bounded length."""
        for first in range(0, self.n_samples, _BLOCK):
            yield self.read_waveform(first, _BLOCK)

    def _count(self, n_bytes: int) -> None:
        self._buffered.add(n_bytes)
        self._n_counted += n_bytes

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._buffered.remove(self._n_counted)
        os.close(self.upload)
        os.close(self.waveform)


def too_large(max_bytes: int) -> ProblemError:
    """The refusal of a body of more than `max_bytes`."""
    return ProblemError(
        "upload-too-large",
        f"The upload has more than {max_bytes} bytes, which is what this server takes. "
        f"Send it compressed (FLAC, Opus), or in pieces.",
    )


def _nameless_file(expected_bytes: int | None) -> int:
    if expected_bytes is not None and expected_bytes <= _IN_MEMORY:
        return os.memfd_create("sound")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
