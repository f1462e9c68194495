"""Sound in containers that libsndfile does not read (MP4, WebM), through PyAV.

What a phone records and a browser sends comes so. The container is the one that the file's first
bytes say, never FFmpeg's guess: its playlists and references to other files stay shut.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from koser.audio.containers import conversion_command
from koser.errors import AudioError

# Name in a message -> FFmpeg's demuxer.
DEMUXERS = {"MP4/M4A": "mp4", "WebM/Matroska": "matroska"}
# Decoders of sound that such files hold; FFmpeg has hundreds more, few of them well worn.
_CODECS = frozenset(
    {"aac", "alac", "mp3", "mp3float", "opus", "vorbis", "flac", "ac3", "eac3",
     "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8"}
)  # fmt: skip
# What the end of a stream may lack of the length that its header says: coders work in frames.
_SLACK = 0.1  # seconds


class ForeignSound:
    """A sound file read front to back, with the part of `soundfile.SoundFile` that koser uses.

    Such headers do not say how many samples there are, to the sample; opening therefore
    decodes the file once, keeping nothing.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading. It stays open.
    container : str
        A key of `DEMUXERS`.
    path : str
        Its name, for messages.

    Raises
    ------
    AudioError
        If it holds no sound that can be decoded, or ends before its header says.
    ModuleNotFoundError
        Without PyAV.
    """

    def __init__(self, descriptor: int, container: str, path: str) -> None:
        self.format = container.partition("/")[0].upper()
        self._descriptor = descriptor
        self._demuxer = DEMUXERS[container]
        self._path = path
        self.subtype = ""
        self.samplerate = self.channels = 0
        self.frames = 0
        for planes in self._decode():
            self.frames += planes.shape[1]
        self._blocks = self._decode()
        self._rest = np.zeros((self.channels, 0), np.float32)

    def __enter__(self) -> ForeignSound:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._blocks.close()

    def seek(self, position: int) -> None:
        """Go to a sample, by decoding all before it; only once, from the start."""
        while position > 0:
            position -= len(self._take(position))

    def read(self, n_frames: int, *, out: np.ndarray) -> np.ndarray:
        """Read up to `n_frames` samples of each channel into `out`; fewer only at the end.

        Returns
        -------
        np.ndarray [shape=(n_read, n_channels)]
            The part of `out` that was filled.
        """
        n_read = 0
        while n_read < n_frames and len(piece := self._take(n_frames - n_read)):
            out[n_read : n_read + len(piece)] = piece
            n_read += len(piece)
        return out[:n_read]

    def _take(self, most: int) -> np.ndarray:
        """The next samples, at most as many [shape=(n_samples, n_channels)]; none at the end."""
        while not self._rest.shape[1]:
            planes = next(self._blocks, None)
            if planes is None:
                return np.zeros((0, self.channels), np.float32)
            self._rest = planes
        taken, self._rest = self._rest[:, :most], self._rest[:, most:]
        return taken.T

    def _decode(self) -> Generator[np.ndarray, None, None]:
        """Yield the sound as float32 planes [shape=(n_channels, n_samples)], from the start."""
        import av

        seconds = Fraction(0)
        try:
            with _stream(self._descriptor, self._demuxer, self._path) as (container, stream):
                self.subtype = stream.codec_context.name.upper()
                converter = av.AudioResampler(format="fltp")
                for frame in container.decode(stream):
                    self._check_frame(frame.sample_rate, frame.layout.nb_channels)
                    for converted in converter.resample(frame):
                        seconds += Fraction(converted.samples, self.samplerate)
                        yield converted.to_ndarray()
                expected = _length(container, stream)
        except (av.FFmpegError, EOFError, ValueError) as error:
            raise AudioError(
                f"'{self._path}' cannot be decoded beyond {float(seconds):.3f} s: truncated, "
                f"damaged or not {self.format} ({_reason(error)}). Copy or download it again."
            ) from error
        if not seconds:
            raise AudioError(f"'{self._path}' holds no samples. Copy or record it again.")
        if expected is not None and seconds < expected - Fraction(_SLACK):
            raise AudioError(
                f"'{self._path}' is truncated: its header promises {float(expected):.3f} s, the "
                f"sound ends at {float(seconds):.3f} s. Copy or download it again."
            )

    def _check_frame(self, sampling_rate: int, n_channels: int) -> None:
        if not self.samplerate:
            self.samplerate, self.channels = sampling_rate, n_channels
        if (sampling_rate, n_channels) != (self.samplerate, self.channels):
            raise AudioError(
                f"'{self._path}' changes from {self.channels} channels at {self.samplerate} Hz to "
                f"{n_channels} at {sampling_rate}. Convert it: {conversion_command(self._path)}"
            )


@contextmanager
def _stream(descriptor: int, demuxer: str, path: str) -> Iterator[tuple[Any, Any]]:
    import av

    os.lseek(descriptor, 0, os.SEEK_SET)
    # An open file and not its path: nothing that FFmpeg reads in it can name another one.
    with (
        os.fdopen(os.dup(descriptor), "rb") as file,
        av.open(file, mode="r", format=demuxer, metadata_errors="ignore") as container,
    ):
        if not container.streams.audio:
            raise AudioError(f"'{path}' holds no sound. Give a file with an audio track.")
        stream = container.streams.audio[0]
        codec = "nothing known" if stream.codec_context is None else stream.codec_context.name
        if codec not in _CODECS:
            raise AudioError(
                f"The sound of '{path}' is coded as {codec}, which koser does not decode. "
                f"Convert it: {conversion_command(path)}"
            )
        stream.codec_context.thread_count = 1
        yield container, stream


def _length(container: Any, stream: Any) -> Fraction | None:
    """Seconds that the header promises; None where it is silent, as when it was streamed."""
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return Fraction(container.duration, 1_000_000)
    return None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".")
