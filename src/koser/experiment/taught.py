"""A hash of what a training is taught: it tells what was kept from what would be made now."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from koser.systems.system import Part
from koser.systems.variants import StoredVariants


def hash_taught(part: Part, data: Any, *wanted: np.ndarray) -> str:
    """A hash of the sound of a training's rows, and of what is wanted of each.

    Parameters
    ----------
    part : Part
        The training. Its test rows count too: what was said of them is kept with it.
    data : object
        What a system's `extract` returned. Of sound that is read again in every epoch nothing
        is in it that would be cheap to tell, so it does not count.
    *wanted : np.ndarray [shape=(n_utterances, ...)]
        Labels, target distributions or values of the manifest's rows.
    """
    columns = [*wanted, *(stored.keys.T for stored in _stored_in(data))]
    digest = hashlib.blake2b(digest_size=16)
    for rows in (part.train, part.val, part.test):
        for column in columns:
            digest.update(np.ascontiguousarray(column[rows]).tobytes())
    return digest.hexdigest()


def _stored_in(data: Any) -> Iterator[StoredVariants]:
    """Where sound lies, wherever a system keeps that: an ensemble has it by member."""
    if isinstance(data, StoredVariants):
        yield data
    elif isinstance(data, dict):
        for each in data.values():
            yield from _stored_in(each)
    elif dataclasses.is_dataclass(data):
        for field in dataclasses.fields(data):
            yield from _stored_in(getattr(data, field.name))
