"""A model that `koser export` wrote: one file from waveform to probabilities, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from koser.audio.reading import SAMPLING_RATE
from koser.engines.local import available_cores
from koser.errors import CheckpointError
from koser.runtime import open_session, shrinking_options

# The graph's one input [shape=(n_samples,)] and one output [shape=(n_labels,)], and the key of
# its metadata that holds everything else, as JSON.
INPUT_NAME = "waveform"
OUTPUT_NAME = "probabilities"
METADATA_KEY = "koser"
FORMAT = "koser-onnx-1"
# Seconds from which on the memory of a run is given back after it.
_LONG = 30


class OnnxModel:
    """An exported model.

    The graph takes one waveform of any length, because padding would cost what a batch
    gains; several waveforms are computed by several threads instead.

    Parameters
    ----------
    path : Path
        The ``.onnx`` file.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or not one that `koser export` wrote.
    """

    is_threaded = True
    is_on_gpu = False

    def __init__(self, path: Path) -> None:
        self._session = open_session(path, name=str(path))
        self._shrinking = shrinking_options()
        metadata = _read_metadata(self._session, path)
        self.labels: tuple[str, ...] = tuple(metadata["labels"])
        self.origin: dict[str, object] = metadata["origin"]
        self.system: str = metadata["system"]

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities of waveforms [shape=(n_waveforms, n_labels)]."""
        n_threads = min(available_cores(), len(waveforms))
        if n_threads <= 1:
            rows = [self._run(waveform) for waveform in waveforms]
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                rows = list(pool.map(self._run, waveforms))
        return np.array(rows, np.float64).reshape(len(rows), len(self.labels))

    def _run(self, waveform: np.ndarray) -> np.ndarray:
        inputs = {INPUT_NAME: np.ascontiguousarray(waveform, np.float32)}
        options = self._shrinking if len(waveform) > _LONG * SAMPLING_RATE else None
        row: np.ndarray = self._session.run([OUTPUT_NAME], inputs, options)[0]
        # float32 sums to 1 but for its last digits.
        probabilities: np.ndarray = row.astype(np.float64) / row.sum(dtype=np.float64)
        return probabilities


def _read_metadata(session: Any, path: Path) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
    try:
        metadata: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        metadata = {}
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"'{path}' is an ONNX model, but none that koser exported (format {FORMAT}). "
            f"Make one of a run: koser export RUN --out model.onnx"
        )
    if metadata["sampling_rate"] != SAMPLING_RATE:
        raise CheckpointError(
            f"'{path}' takes {metadata['sampling_rate']} Hz; koser's sound is at {SAMPLING_RATE}."
        )
    return metadata
