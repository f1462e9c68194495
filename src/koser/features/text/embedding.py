"""Texts in the feature store, each addressed by its content."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.features.extraction import Progress
from koser.features.store import KEY_SIZE, FeatureStore
from koser.features.text.encoder import TextExtractor

# Texts that are embedded before they are written.
_CHUNK = 256


@dataclass(frozen=True)
class StoredTexts:
    """Where texts lie, as a text model has them.

    Attributes
    ----------
    store_root : Path
        Folder of the stores.
    description : dict
        What is kept of the texts.
    dtype : str
        NumPy type of the arrays.
    """

    store_root: Path
    description: dict[str, object]
    dtype: str

    def open(self) -> FeatureStore:
        """The store."""
        return FeatureStore(self.store_root, self.description, dtype=self.dtype)


def text_key(text: str | None) -> bytes:
    """The store's key of a text: a hash of it in NFC; blank for none."""
    if text is None:
        return b""
    normal = unicodedata.normalize("NFC", text)
    return hashlib.sha256(normal.encode()).digest()[:KEY_SIZE]


def text_keys(texts: Sequence[str | None]) -> np.ndarray:
    """The keys of texts [shape=(n_texts,), dtype=S16]; blank where there is none."""
    return np.array([text_key(text) for text in texts], f"S{KEY_SIZE}")


def embed_texts(
    texts: Sequence[str | None],
    extractor: TextExtractor,
    store_root: Path,
    *,
    progress: Progress | None = None,
) -> StoredTexts:
    """Put every text into the store that is not there yet; each distinct one once.

    Parameters
    ----------
    texts : Sequence[str or None]
        None where there is none.
    extractor : TextExtractor
        The text model.
    store_root : Path
        Folder of the stores.
    progress : Progress, optional
        Called with the number of distinct texts done so far and their total.
    """
    stored = StoredTexts(store_root, extractor.describe(), extractor.dtype)
    store = stored.open()
    distinct = {text_key(text): text for text in texts if text is not None}
    missing = [(key, text) for key, text in distinct.items() if key not in store]
    if missing:
        with store.writer() as writer:
            for first in range(0, len(missing), _CHUNK):
                chunk = missing[first : first + _CHUNK]
                arrays = extractor.extract(
                    [unicodedata.normalize("NFC", text) for _, text in chunk]
                )
                writer.append_together(zip((key for key, _ in chunk), arrays, strict=True))
                if progress is not None:
                    n_known = len(distinct) - len(missing)
                    progress(n_known + first + len(chunk), len(distinct))
    return stored
