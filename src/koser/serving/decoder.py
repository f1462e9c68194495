"""One decoder: a process that turns uploads into waveforms and may be killed at any moment.

Started by `koser.serving.decoding` with a socket as its only way to talk. What it decodes comes
from strangers: a crash of a C library, an endless loop or a claim of years of sound end here,
and the server starts another one.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass

import numpy as np

from koser.audio.reading import SAMPLING_RATE, iter_blocks, probe
from koser.errors import AudioError

# No recording of speech is outside of it; ratios far beyond cost a resampler gigabytes.
_MIN_RATE, _MAX_RATE = 1_000, 768_000
_MAX_CHANNELS = 64
_MESSAGE_BYTES = 4096
_NAME = "upload"  # what messages call it: the server knows no file names
_DETAIL_CHARACTERS = 1000


@dataclass(frozen=True)
class RefusalError(Exception):
    """Sound that is refused, as a kind of problem and its detail."""

    kind: str
    detail: str


def decode(upload: int, waveform: int, max_seconds: float) -> int:
    """Decode an upload into 16 kHz mono float32 samples.

    Parameters
    ----------
    upload, waveform : int
        Descriptors of the file to read, and of the one to write.
    max_seconds : float
        Longest sound that is decoded.

    Returns
    -------
    int
        Samples.

    Raises
    ------
    RefusalError
        If it is too long, or no sound that can be decoded.
    """
    path = f"/proc/self/fd/{upload}"
    try:
        info = probe(path, name=_NAME)
        _check_header(info.duration, info.sampling_rate, info.n_channels, max_seconds)
        n_written = 0
        for block in iter_blocks(path, name=_NAME):
            content = memoryview(np.ascontiguousarray(block)).cast("B")  # type: ignore[arg-type]  # NumPy has it at run time
            while content:
                n_bytes = os.pwrite(waveform, content, n_written)
                n_written, content = n_written + n_bytes, content[n_bytes:]
            if n_written > 4 * SAMPLING_RATE * (max_seconds + 1):  # whatever the header says
                raise RefusalError("audio-too-long", f"More than {max_seconds:g} s of sound.")
    except AudioError as error:
        raise RefusalError("audio-unreadable", str(error)) from error
    except MemoryError as error:
        raise RefusalError(
            "audio-unreadable", "Decoding it needs more memory than the server gives one upload."
        ) from error
    return n_written // 4


def _check_header(duration: float, rate: int, n_channels: int, max_seconds: float) -> None:
    if duration > max_seconds:
        raise RefusalError(
            "audio-too-long",
            f"The sound lasts {duration:.1f} s by its header; this takes {max_seconds:g} s. "
            f"Send it in pieces.",
        )
    if not (_MIN_RATE <= rate <= _MAX_RATE and n_channels <= _MAX_CHANNELS):
        raise RefusalError(
            "audio-unreadable",
            f"A header of {rate} Hz and {n_channels} channels is no recording of speech "
            f"({_MIN_RATE} to {_MAX_RATE} Hz, {_MAX_CHANNELS} channels at most).",
        )


def serve(channel: socket.socket) -> None:
    """Decode what comes through `channel` until its other end closes."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 2)
        if not message:
            return
        try:
            n_samples = decode(descriptors[0], descriptors[1], json.loads(message)["max_seconds"])
            answer: dict[str, object] = {"n_samples": n_samples}
        except RefusalError as refusal:
            answer = {"kind": refusal.kind, "detail": refusal.detail[:_DETAIL_CHARACTERS]}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        channel.send(json.dumps(answer).encode())


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The server's own end is its business: Ctrl-C reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main() -> None:
    """Entry point: ``python -m koser.serving.decoder SOCKET_FD MEMORY_BYTES``."""
    _limit(int(sys.argv[2]))
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        channel.send(json.dumps({"sampling_rate": SAMPLING_RATE}).encode())  # it is up
        serve(channel)


if __name__ == "__main__":
    main()
