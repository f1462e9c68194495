"""Read speech: what a file is (`probe`) and its samples (`load`), in bounded memory.

Everything koser hears is 16 kHz mono float32. `load` gets there block by block, so
an hour of 8-channel studio sound costs what its 16 kHz mono costs. A file that is
broken is an `AudioError` that says how to mend it, never a shorter waveform.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
import soundfile

from koser.audio.containers import (
    MendedWav,
    check_container,
    conversion_command,
    count_untagged_mp3_samples,
    foreign_container,
)
from koser.audio.foreign import DEMUXERS, ForeignSound
from koser.audio.opening import open_descriptor
from koser.audio.remote import fetch_audio, fetch_header
from koser.audio.resampling import StreamResampler, resampled_length
from koser.errors import AudioError
from koser.storage.objects import Spool
from koser.storage.places import is_url

SAMPLING_RATE = 16_000  # Hz, what all of koser works in

_BLOCK_BYTES = 2**17  # of float32 samples decoded at a time: larger blocks leave the CPU's cache
# Full scale is 1, or 2^31 where somebody wrote integers as floats. What is far beyond is damage,
# and its square leaves float32.
LOUDEST = 2.0**40
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's SF_COUNT_MAX: the header does not say


@dataclass(frozen=True)
class Clip:
    """An utterance's place: a file or URL, or a part in seconds; all channels, or one from 0."""

    path: str
    start: float | None = None
    end: float | None = None
    channel: int | None = None


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes
    ----------
    path : str
        The file, as it was given, or the name it was given.
    duration : float
        Seconds.
    sampling_rate : int
        Hz, of the file.
    n_channels, n_samples : int
        Channels, and samples in each of them.
    container, subtype : str
        libsndfile's names, such as ``"WAV"`` and ``"PCM_16"``.
    """

    path: str
    duration: float
    sampling_rate: int
    n_channels: int
    n_samples: int
    container: str
    subtype: str


def probe(path: str | os.PathLike[str], *, name: str | None = None) -> AudioInfo:
    """What the header of an audio file says; nothing is decoded, but of MP4 and WebM.

    Parameters
    ----------
    path : str or os.PathLike
        A file that libsndfile reads: WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF ...; with
        koser[av] also MP4, M4A and WebM. Or, as a str, the URL of one, with koser[cloud]: of
        WAV and FLAC only the beginning is fetched, of others everything.
    name : str, optional
        What messages call it, by default the path.

    Raises
    ------
    AudioError
        If the file is missing, a folder, not permitted, empty, no audio, without
        samples, of unknown length, or a WAV or Ogg that ends too early. A FLAC or MP3
        that ends too early is only seen by `load`.
    StorageError
        If object storage cannot be used.
    """
    if is_url(path):
        spool = fetch_header(str(path))
        with _opened(spool.path, str(path) if name is None else name) as (_, info):
            return info
    with _opened(os.fspath(path), name) as (_, info):
        return info


def load(
    path: str | os.PathLike[str],
    *,
    sampling_rate: int = SAMPLING_RATE,
    start: float | None = None,
    end: float | None = None,
    channel: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Load a file, or a segment of it, as a mono waveform.

    Integers of any width are scaled to [-1, 1]; floats stay what they are, beyond
    [-1, 1] too. Channels are averaged unless one is named. Beside the result, memory holds a few
    MiB whatever the file's length, rate and channels.

    Parameters
    ----------
    path : str or os.PathLike
        A file that libsndfile reads: WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF ...; with
        koser[av] also MP4, M4A and WebM. Or, as a str, the URL of one, with koser[cloud]: it is
        copied to a temporary file first.
    sampling_rate : int > 0
        Hz, of the result.
    start, end : float, optional
        The segment in seconds; by default the file's own start and end. Both are
        rounded to the nearest sample of the file, and only the segment is decoded. It is
        resampled as if silence surrounded it: within 10 ms of its ends it may differ from
        the same piece of the whole waveform, elsewhere by less than 1e-5. (Ogg Opus: by
        less than 0.004 anywhere, because its decoder has to settle after a seek.)
    channel : int, optional
        The only channel to hear, from 0; by default the mean of all.
    name : str, optional
        What messages call it, by default the path.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        float32; ``n_samples = ceil(n_file_samples * sampling_rate / file_rate)``.

    Raises
    ------
    AudioError
        As `probe`; and if the file ends before its header says, cannot be decoded or
        holds NaN, infinite or absurdly large samples, if the segment or the channel is not
        within it, or if the result does not fit in memory.
    StorageError
        If object storage cannot be used.
    """
    with _opened(os.fspath(path), name) as (file, info):
        weights = _channel_weights(info, channel)
        first, last = segment_bounds(info, start, end)
        resampler = StreamResampler(info.sampling_rate, sampling_rate)
        n_samples = resampled_length(last - first, info.sampling_rate, sampling_rate)
        try:
            waveform = np.empty(n_samples, np.float32)
        except MemoryError as error:  # a damaged header may promise years of sound
            raise AudioError(
                f"'{info.path}' promises {(last - first) / info.sampling_rate:.0f} s of sound, "
                f"which do not fit in memory. If that is true, load it in segments with `start` "
                f"and `end`; if not, its header is damaged: copy or download it again."
            ) from error
        n_filled = 0
        for block in _mono_blocks(file, info, (first, last), weights):
            resampled = resampler.feed(block)
            waveform[n_filled : n_filled + len(resampled)] = resampled
            n_filled += len(resampled)
        waveform[n_filled:] = resampler.flush()
    return waveform


def load_clip(
    clip: Clip, *, sampling_rate: int = SAMPLING_RATE, spool: Spool | None = None
) -> np.ndarray:
    """Load what a clip is, from the `spool` of its file if that was fetched; see `load`."""
    return load(
        clip.path if spool is None else spool.path,
        sampling_rate=sampling_rate,
        start=clip.start,
        end=clip.end,
        channel=clip.channel,
        name=None if spool is None else clip.path,
    )


def iter_blocks(
    path: str | os.PathLike[str],
    *,
    seconds: float = 30.0,
    sampling_rate: int = SAMPLING_RATE,
    name: str | None = None,
) -> Iterator[np.ndarray]:
    """Yield what `load` returns block by block, so that hours cost no more memory than minutes.

    Parameters
    ----------
    path : str or os.PathLike
        As of `load`.
    seconds : float > 0
        Length of a block.
    sampling_rate : int > 0
        Hz, of the result.
    name : str, optional
        What messages call the file, by default the path.

    Yields
    ------
    np.ndarray [shape=(round(seconds * sampling_rate),)]
        float32; the last one may be shorter.

    Raises
    ------
    AudioError
        As `load`, when the place of the fault is reached.
    """
    with _opened(os.fspath(path), name) as (file, info):
        weights = _channel_weights(info, None)
        resampler = StreamResampler(info.sampling_rate, sampling_rate)
        block, n_filled = np.empty(max(1, round(seconds * sampling_rate)), np.float32), 0
        for pieces in (_mono_blocks(file, info, (0, info.n_samples), weights), [None]):
            for mono in pieces:
                rest = resampler.flush() if mono is None else resampler.feed(mono)
                while len(rest):
                    taken = rest[: len(block) - n_filled]
                    block[n_filled : n_filled + len(taken)] = taken
                    n_filled, rest = n_filled + len(taken), rest[len(taken) :]
                    if n_filled == len(block):
                        yield block
                        block, n_filled = np.empty_like(block), 0
        if n_filled:
            yield block[:n_filled]


SoundFile: TypeAlias = soundfile.SoundFile | ForeignSound


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile may be untyped
    """A `SoundFile` that does not seek unless it is told to.

    After every read soundfile seeks to where it already is, which restarts the decoder:
    Ogg Opus then yields other samples at the seams between blocks. It leaves files
    alone that say they cannot seek; an explicit `seek` still works.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def _opened(path: str, name: str | None) -> Iterator[tuple[SoundFile, AudioInfo]]:
    if is_url(path):
        spool = fetch_audio(path)
        with _opened(spool.path, path if name is None else name) as opened:
            yield opened
        return
    descriptor = open_descriptor(path)
    path = path if name is None else name
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"'{path}' is a folder. Give one of the audio files in it.")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"'{path}' is no regular file. Save the sound to a file first.")
        container = foreign_container(descriptor)
        if container in DEMUXERS and find_spec("av") is not None:
            with ForeignSound(descriptor, container, path) as sound:
                yield sound, _info(path, sound, descriptor)
            return
        size_position = check_container(descriptor, status.st_size, path)
        source = descriptor if size_position is None else MendedWav(descriptor, size_position)
        try:
            file = _SequentialFile(source, closefd=False)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"'{path}' is not audio that libsndfile can read ({_reason(error)}). "
                f"If it is sound of another kind, convert it: {conversion_command(path)}"
            ) from error
        with file:
            yield file, _info(path, file, descriptor)
    finally:
        os.close(descriptor)


def _info(path: str, file: SoundFile, descriptor: int) -> AudioInfo:
    if file.frames == _UNKNOWN_LENGTH:
        raise AudioError(
            f"The header of '{path}' does not say how long it is, as when a {file.format} file was "
            f"written to a pipe. Convert it: {conversion_command(path)}"
        )
    if file.frames == 0:
        raise AudioError(
            f"'{path}' holds no samples: a {file.format} header and nothing after it. "
            f"Copy or record it again."
        )
    n_samples = file.frames
    if file.format == "MP3":
        n_walked = count_untagged_mp3_samples(descriptor, path)
        if n_walked is not None and n_walked > n_samples:
            raise AudioError(
                f"'{path}' is a variable-rate MP3 without a Xing frame: libsndfile would read "
                f"{n_samples} of its {n_walked} samples. Convert it: {conversion_command(path)}"
            )
        n_samples = n_samples if n_walked is None else n_walked
    return AudioInfo(
        path=path,
        duration=n_samples / file.samplerate,
        sampling_rate=file.samplerate,
        n_channels=file.channels,
        n_samples=n_samples,
        container=file.format,
        subtype=file.subtype,
    )


def segment_bounds(info: AudioInfo, start: float | None, end: float | None) -> tuple[int, int]:
    """First sample of a segment in seconds and the one after its last; raises as `load`."""
    # A comparison with NaN is false, so NaN is refused like any time outside the file.
    seconds = 0.0 if start is None else start, info.duration if end is None else end
    rate = info.sampling_rate
    if 0 <= seconds[0] < seconds[1] < info.duration + 1 / rate:
        first, last = round(seconds[0] * rate), round(seconds[1] * rate)
        if first < last <= info.n_samples:
            return first, last
    raise AudioError(
        f"The segment from {seconds[0]} to {seconds[1]} s holds no samples of '{info.path}' or "
        f"reaches beyond it; the file lasts {info.duration:.6f} s. "
        f"Give 0 <= start < end <= {info.duration:.6f}."
    )


def _channel_weights(info: AudioInfo, channel: int | None) -> np.ndarray:
    """What each channel counts in the mono sum, shape ``(n_channels,)``."""
    if channel is None:
        return np.full(info.n_channels, 1 / info.n_channels, np.float32)
    if not 0 <= channel < info.n_channels:
        raise AudioError(
            f"'{info.path}' has no channel {channel}: its channels are 0 to {info.n_channels - 1}. "
            f"Was it mixed down after its manifest was made? Make the manifest again."
        )
    weights = np.zeros(info.n_channels, np.float32)
    weights[channel] = 1
    return weights


def _mono_blocks(
    file: SoundFile, info: AudioInfo, bounds: tuple[int, int], weights: np.ndarray
) -> Iterator[np.ndarray]:
    # Each block is overwritten by the next one.
    first, last = bounds
    block_length = max(1, min(last - first, _BLOCK_BYTES // (4 * info.n_channels)))
    buffer = np.empty((block_length, info.n_channels), np.float32)
    position = first
    try:
        if first:
            file.seek(first)
        while position < last:
            frames = file.read(min(block_length, last - position), out=buffer)
            if not len(frames):
                break
            mono = frames[:, 0] if info.n_channels == 1 else frames @ weights
            _refuse_damage(mono, info, position)
            yield mono
            position += len(frames)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"'{info.path}' cannot be decoded beyond {position / info.sampling_rate:.3f} of its "
            f"{info.duration:.3f} s: truncated or damaged ({_reason(error)}). "
            f"Copy or download it again."
        ) from error
    if position < last:
        raise AudioError(
            f"'{info.path}' is truncated: its header promises {info.duration:.3f} s, the file "
            f"ends at {position / info.sampling_rate:.3f} s. Copy or download it again."
        )


def _refuse_damage(mono: np.ndarray, info: AudioInfo, position: int) -> None:
    # Two passes that write nothing; NaN comes through both, and compares false.
    if not (mono.max() < LOUDEST and mono.min() > -LOUDEST):
        index = int(np.argmin(np.abs(mono) < LOUDEST))
        seconds = (position + index) / info.sampling_rate
        raise AudioError(
            f"'{info.path}' holds {mono[index]:g} at {seconds:.6f} s (sample {position + index}). "
            f"Cut it out, or export the file again from its source."
        )


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).strip().rstrip(".")
