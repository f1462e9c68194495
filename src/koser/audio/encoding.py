"""Sound as bytes that others can play."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from koser.errors import AudioError

# libsndfile gives Opus 256 kbit/s a channel at compression level 0, 6 at level 1, linearly.
_OPUS_MOST, _OPUS_LEAST = 256.0, 6.0


def encode_flac(waveform: np.ndarray, sampling_rate: int) -> bytes:
    """Encode a waveform as FLAC: 16 bits, about half of a WAV, and every browser plays it.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        float32 in [-1, 1]; what lies outside is clipped.
    sampling_rate : int
        In Hz.

    Returns
    -------
    bytes
        A whole FLAC file.
    """
    return _encoded(waveform, sampling_rate, "FLAC", "PCM_16")


def encode_opus(waveform: np.ndarray, sampling_rate: int, kbits: float) -> bytes:
    """Encode a waveform as Opus (RFC 6716) with a variable rate of about `kbits` kbit/s, in Ogg.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        float32 in [-1, 1]; what lies outside is clipped.
    sampling_rate : int
        In Hz: 8000, 12000, 16000, 24000 or 48000.
    kbits : float
        6 to 256.

    Raises
    ------
    AudioError
        If the installed libsndfile cannot.
    """
    level = (_OPUS_MOST - kbits) / (_OPUS_MOST - _OPUS_LEAST)
    return _encoded(waveform, sampling_rate, "OGG", "OPUS", level)


def _encoded(
    waveform: np.ndarray,
    sampling_rate: int,
    container: str,
    subtype: str,
    compression: float | None = None,
) -> bytes:
    buffer = io.BytesIO()
    try:
        soundfile.write(
            buffer,
            np.clip(waveform, -1.0, 1.0),
            sampling_rate,
            format=container,
            subtype=subtype,
            compression_level=compression,
        )
    except (soundfile.LibsndfileError, ValueError) as error:
        raise AudioError(
            f"The installed libsndfile ({soundfile.__libsndfile_version__}) cannot encode "
            f"{container} {subtype}: {error}. Install a newer soundfile."
        ) from error
    return buffer.getvalue()
