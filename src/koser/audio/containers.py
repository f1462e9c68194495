"""Is an audio file whole, and is it a kind libsndfile reads? Answered from a few header bytes.

libsndfile clamps what a truncated WAV or Ogg promises to what the file holds, and
calls everything it does not know "unspecified internal error". A corpus must not
shrink unseen, so the containers are looked at here before they are decoded.
"""

from __future__ import annotations

import io
import mmap
import os
import shlex
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from koser.errors import AudioError
from koser.storage.places import is_url, name_of

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12 on

# Sizes that writers to a pipe leave in the data chunk because they cannot go back:
# GStreamer, sox, arecord, ffmpeg. They promise nothing; the sound ends where the file does.
STREAMED_DATA_SIZES = frozenset({0, 0x7FFFF000, 0x7FFFFF00, 0xFFFFFFFF})

# Containers that libsndfile does not read: offset of the magic bytes, bytes, name.
FOREIGN_CONTAINERS = (
    (4, b"ftyp", "MP4/M4A"),
    (0, b"\x1a\x45\xdf\xa3", "WebM/Matroska"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
    (0, b"#!AMR", "AMR"),
)

# PyAV reads them (`koser.audio.foreign`), where it is installed.
_WITH_AV = "Install koser[av] for it. "
_WAY_OUT = {"MP4/M4A": _WITH_AV, "WebM/Matroska": _WITH_AV}

# RFC 3533: 27 bytes of header, 255 lacing values, 255 segments of 255 bytes.
_MAX_OGG_PAGE = 27 + 255 + 255 * 255
_OGG_END_OF_STREAM = 4

# kbit/s of MPEG audio layer III by bitrate index, and Hz by rate index (ISO/IEC 11172-3,
# 13818-3), for MPEG 1 and for MPEG 2; MPEG 2.5 halves the rates of MPEG 2.
_MP3_KBIT = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
_MP3_RATES = (44_100, 48_000, 32_000, 0)
_MP3_HALVINGS = {3: 0, 2: 1, 0: 2}  # version bits: MPEG 1, 2, 2.5


def foreign_container(descriptor: int) -> str | None:
    """The name of the container, if it is one of `FOREIGN_CONTAINERS`.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading. Its position is left alone.
    """
    magic = os.pread(descriptor, 12, 0)
    for offset, signature, name in FOREIGN_CONTAINERS:
        if magic.startswith(signature, offset):
            return name
    return None


def check_container(descriptor: int, n_bytes: int, path: str) -> int | None:
    """Refuse a file that ends before its header says, or that libsndfile cannot read.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading. Its position is left alone.
    n_bytes : int
        Its size.
    path : str
        Its name, for messages and the way out.

    Returns
    -------
    int or None
        Where a WAV writer to a pipe left a 0 for the size of the sound that follows: to be
        read through `MendedWav`. None for every other file.

    Raises
    ------
    AudioError
        If the file is empty, a truncated WAV, RF64 or Ogg, or an MP4, WebM, WMA or AMR.
    """
    if n_bytes == 0:
        raise AudioError(f"'{path}' is empty (0 bytes). Copy or record it again.")
    name = foreign_container(descriptor)
    if name is not None:
        raise AudioError(
            f"'{path}' is {name}, which libsndfile cannot read. {_WAY_OUT.get(name, '')}"
            f"Convert it: {conversion_command(path)}"
        )
    magic = os.pread(descriptor, 12, 0)
    if magic.startswith((b"RIFF", b"RIFX", b"RF64")) and magic.endswith(b"WAVE"):
        return _check_wav(descriptor, n_bytes, path, magic[:4])
    if magic.startswith(b"OggS"):
        _check_ogg(descriptor, n_bytes, path)
    return None


class MendedWav(io.FileIO):
    """A WAV file whose data chunk of size 0 reads as "up to the end of the file".

    libsndfile takes 0xFFFFFFFF for that, and 0 for a file without sound.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading.
    size_position : int
        Where the size stands, as `check_container` returns it.
    """

    def __init__(self, descriptor: int, size_position: int) -> None:
        super().__init__(descriptor, "rb", closefd=False)
        self._size_position = size_position

    def readinto(self, buffer: Buffer) -> int | None:
        """Read as `io.FileIO` does, and put the size in."""
        start = self.tell()
        n_read = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for position in range(self._size_position, self._size_position + 4):
            if start <= position < start + (n_read or 0):
                view[position - start] = 0xFF
        return n_read


def conversion_command(path: str) -> str:
    """The command that makes a WAV that koser reads of `path`; of a URL, of its copy here.

    Examples
    --------
    >>> conversion_command("calls/no 1.m4a")
    "ffmpeg -i 'calls/no 1.m4a' -ac 1 -ar 16000 'calls/no 1_16k.wav'"
    >>> conversion_command("s3://calls/1.m4a")
    'ffmpeg -i 1.m4a -ac 1 -ar 16000 1_16k.wav'
    """
    path = name_of(path).name if is_url(path) else path
    converted = str(Path(path).with_name(f"{Path(path).stem}_16k.wav"))
    return f"ffmpeg -i {shlex.quote(path)} -ac 1 -ar 16000 {shlex.quote(converted)}"


def _check_wav(descriptor: int, n_bytes: int, path: str, magic: bytes) -> int | None:
    chunk_header = struct.Struct(">4sI" if magic == b"RIFX" else "<4sI")
    long_size = None  # of the data chunk, where RF64 keeps it
    position = 12
    while len(header := os.pread(descriptor, 8, position)) == 8:
        name, size = chunk_header.unpack(header)
        position += 8
        if name == b"ds64" and len(sizes := os.pread(descriptor, 16, position)) == 16:
            long_size = struct.unpack("<QQ", sizes)[1]
        if name == b"data":
            if size == 0 and not _are_chunks(descriptor, n_bytes, position, chunk_header):
                return position - 4
            is_streamed = size in STREAMED_DATA_SIZES
            if magic == b"RF64" and long_size is not None:
                size, is_streamed = long_size, False
            if size > n_bytes - position and not is_streamed:
                raise AudioError(
                    f"'{path}' is truncated: its header promises {size} bytes of sound, the file "
                    f"holds {n_bytes - position}. Copy or download it again."
                )
            return None
        position += size + size % 2  # chunks start at even positions
    raise AudioError(
        f"'{path}' is truncated: a WAV of {n_bytes} bytes that ends before its data chunk. "
        f"Copy or download it again."
    )


def _are_chunks(descriptor: int, n_bytes: int, position: int, chunk_header: struct.Struct) -> bool:
    """Whether chunks, such as tags, fill the file from `position` on; sound does not do so."""
    while position < n_bytes:
        header = os.pread(descriptor, 8, position)
        if len(header) < 8 or not header[:4].strip().isalnum():
            return False
        size = chunk_header.unpack(header)[1]
        position += 8 + size
        position += size % 2 if position < n_bytes else 0  # a last chunk may lack its padding
    return position == n_bytes


def _check_ogg(descriptor: int, n_bytes: int, path: str) -> None:
    tail_start = max(0, n_bytes - 2 * _MAX_OGG_PAGE)
    tail = os.pread(descriptor, n_bytes - tail_start, tail_start)
    page = tail[tail.rfind(b"OggS") :]
    n_segments = page[26] if len(page) > 26 else 0
    is_whole = len(page) >= 27 + n_segments + sum(page[27 : 27 + n_segments]) > 27
    if not (is_whole and page[5] & _OGG_END_OF_STREAM):
        raise AudioError(
            f"'{path}' is truncated: the last Ogg page of its {n_bytes} bytes does not end the "
            f"stream. Copy or download it again, or keep what there is: {conversion_command(path)}"
        )


def count_untagged_mp3_samples(descriptor: int, path: str) -> int | None:
    """Samples per channel of an MP3 without a Xing, Info or VBRI frame, by walking its frames.

    Without such a frame libsndfile guesses the length from the first frame's bit rate
    and stops there: of a variable-rate speech file it may return a sixth.

    Parameters
    ----------
    descriptor : int
        The file, opened for reading.
    path : str
        Its name, for messages.

    Returns
    -------
    int or None
        The count; None where the file says it itself, or is no layer III.

    Raises
    ------
    AudioError
        If the file ends within a frame, or holds something else between frames.
    """
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mp3:
        position = _mp3_start(mp3)
        if _mp3_frame(mp3, position) is None:
            return None
        if any(tag in mp3[position : position + 40] for tag in (b"Xing", b"Info", b"VBRI")):
            return None
        n_samples = 0
        while (frame := _mp3_frame(mp3, position)) is not None:
            position += frame[0]
            n_samples += frame[1]
        if position != len(mp3) and mp3[position : position + 3] not in (b"TAG", b"APE", b"LYR"):
            raise AudioError(
                f"'{path}' is truncated or damaged: byte {min(position, len(mp3))} of {len(mp3)} "
                f"is not where an MP3 frame ends. Copy or download it again, or keep what "
                f"there is: {conversion_command(path)}"
            )
        return n_samples


def _mp3_start(mp3: mmap.mmap) -> int:
    if mp3[:3] != b"ID3" or len(mp3) < 10:
        return 0
    size = 0
    for byte in mp3[6:10]:  # ID3v2 keeps 7 bits of a size in each byte
        size = size << 7 | byte & 0x7F
    return 10 + size


def _mp3_frame(mp3: mmap.mmap, position: int) -> tuple[int, int] | None:
    """Bytes and samples of the layer III frame at `position`; None if there is none."""
    if position + 4 > len(mp3):
        return None
    (header,) = struct.unpack_from(">I", mp3, position)
    halvings = _MP3_HALVINGS.get(header >> 19 & 3)
    if header >> 21 != 0x7FF or halvings is None or header >> 17 & 3 != 1:
        return None
    bits = 1000 * _MP3_KBIT[halvings > 0][header >> 12 & 15]
    rate = _MP3_RATES[header >> 10 & 3] >> halvings
    if not bits or not rate:
        return None
    n_samples = 576 if halvings else 1152
    return n_samples // 8 * bits // rate + (header >> 9 & 1), n_samples
