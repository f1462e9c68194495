"""A Whisper that hears the same sound once: for sound that is made in memory and heard again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from koser.features.records import KEY_SIZE
from koser.features.text.cache import CACHE_NAME, TranscriptCache
from koser.features.text.guards import Transcript
from koser.features.text.transcriber import Transcriber
from koser.features.text.whisper import WhisperFolder

# No file of a corpus is addressed so: their hashes are of encoded bytes.
_ADDRESS = b"float32 waveform, 16 kHz mono|"


class KeptTranscriber:
    """As `Transcriber`, but what the cache knows is not heard again; else it is added.

    Parameters
    ----------
    folder : WhisperFolder
        Which Whisper; it is loaded when something is missing.
    language : str
        ISO 639-1 code of what is spoken.
    store_root : Path
        Folder of the stores; the cache is in it, and may be used by other processes too.
    """

    def __init__(self, folder: WhisperFolder, language: str, store_root: Path) -> None:
        self._folder, self._language = folder, language
        self._path = store_root / CACHE_NAME
        self._transcriber: Transcriber | None = None

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
        """Transcribe clips, each as if it were alone; see `Transcriber.transcribe`.

        Raises
        ------
        EncoderError
            If Whisper cannot be loaded.
        StoreError
            If the cache cannot be read or written.
        """
        keys = [samples_key(waveform) for waveform in waveforms]
        cache = TranscriptCache(self._path, self._folder.describe(self._language))
        try:
            found = cache.find(list(dict.fromkeys(keys)))
            missing = {
                key: waveform
                for key, waveform in zip(keys, waveforms, strict=True)
                if key not in found
            }
            if missing:
                heard = self._load().transcribe(list(missing.values()))
                new = dict(zip(missing, heard, strict=True))
                cache.add(new)
                found |= new
        finally:
            cache.close()
        return [found[key] for key in keys]

    def _load(self) -> Transcriber:
        if self._transcriber is None:
            self._transcriber = Transcriber(self._folder.load(), self._language)
        return self._transcriber


def samples_key(waveform: np.ndarray) -> bytes:
    """The cache's key of sound by its samples, of a file or of none.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        16 kHz mono.

    Returns
    -------
    bytes
        `KEY_SIZE` of them.
    """
    samples = np.ascontiguousarray(waveform, dtype=np.float32)
    return hashlib.sha256(_ADDRESS + samples.tobytes()).digest()[:KEY_SIZE]
