"""Sound in a store: fetched whole to be heard, and where its header says it all, only that."""

from __future__ import annotations

import struct

from koser.audio.containers import STREAMED_DATA_SIZES
from koser.errors import AudioError, AudioFetchError, MissingObjectError, ObjectError
from koser.storage.objects import Spool, fetch, look_up, read_range

_HEAD = 2**16  # bytes: the headers of nearly every WAV and FLAC file, and a short clip whole
# Coding of a WAV whose length in samples follows from the size of its data: PCM, floats, A-law,
# mu-law, and WAVE_FORMAT_EXTENSIBLE, which wraps one of them.
_PLAIN_CODINGS = (1, 3, 6, 7, 0xFFFE)
_MIN_FMT = 16  # bytes of a WAV's fmt chunk


def fetch_audio(url: str) -> Spool:
    """Copy an object to this machine's disk; see `koser.storage.objects.fetch`.

    Raises
    ------
    AudioError
        If this object cannot be had: an `AudioFetchError` where it may be another time.
    StorageError
        If storage cannot be used at all.
    """
    try:
        return fetch(url)
    except ObjectError as error:
        raise _audio_error(error) from error


def fetch_header(url: str) -> Spool:
    """What `probe` needs of an object: its beginning, with a hole for the sound, if that does.

    Raises
    ------
    AudioError, StorageError
        As `fetch_audio`.
    """
    try:
        info = look_up(url)
        head = read_range(info, 0, _HEAD)
        if len(head) < info.size and not (_is_wav_header(head) or _is_flac_header(head)):
            return fetch(url, info)
    except ObjectError as error:
        raise _audio_error(error) from error
    spool = Spool(url)
    spool.write(head)
    spool.extend_to(info.size)
    return spool


def _audio_error(error: ObjectError) -> AudioError:
    is_missing = isinstance(error, MissingObjectError)
    return AudioError(str(error)) if is_missing else AudioFetchError(str(error))


def _is_wav_header(head: bytes) -> bool:
    """Whether `head` has all of a WAV file that comes before its sound, and tells its length."""
    if not (head.startswith(b"RIFF") and head[8:12] == b"WAVE"):
        return False
    position, coding = 12, None
    while position + 8 <= len(head):
        name, size = struct.unpack_from("<4sI", head, position)
        position += 8
        if name == b"fmt " and size >= _MIN_FMT and position + 2 <= len(head):
            (coding,) = struct.unpack_from("<H", head, position)
        if name == b"data":
            return coding in _PLAIN_CODINGS and size not in STREAMED_DATA_SIZES
        position += size + size % 2
    return False


def _is_flac_header(head: bytes) -> bool:
    """Whether `head` has all of a FLAC file's metadata, and tells its length."""
    if not head.startswith(b"fLaC") or len(head) < 42:
        return False
    # STREAMINFO: 36 bits of total samples end with its byte 17; 0 if the writer could not know.
    n_samples = int.from_bytes(head[21:26], "big") & (2**36 - 1)
    position = 4
    while n_samples and position + 4 <= len(head):
        is_last = head[position] >= 0x80
        position += 4 + int.from_bytes(head[position + 1 : position + 4], "big")
        if is_last:
            return position <= len(head)
    return False
