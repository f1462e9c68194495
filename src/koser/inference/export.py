"""One file from waveform to probabilities, and the proof that it says the same."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.audio.reading import SAMPLING_RATE, load
from koser.demo import corpus_folder
from koser.errors import CheckpointError
from koser.files import replacing
from koser.inference.models import TorchModel, load_model
from koser.inference.onnx_model import FORMAT, INPUT_NAME, METADATA_KEY, OUTPUT_NAME, OnnxModel

# Lengths at which both are compared, in seconds: from less than a frame of any front-end to
# more than one window of an encoder.
PROBE_SECONDS = (0.02, 0.3, 1.0, 4.0, 11.0, 30.0, 41.0)
TOLERANCE = 1e-4  # of a probability
# What one file of protocol buffers can hold.
_MAX_BYTES = 2**31 - 2**20
_LICENCE_NOTE = (
    "Terms of use follow from the corpus and the pretrained encoder that the model was trained "
    "with; koser itself is under the MIT licence."
)


@dataclass(frozen=True)
class Export:
    """What an export came to.

    Attributes
    ----------
    path : Path
        The file.
    n_bytes : int
        Its size.
    largest_difference : float
        From the system's own probabilities, over the speech in `PROBE_SECONDS`.
    is_int8 : bool
        Whether its weights are 8-bit integers.
    """

    path: Path
    n_bytes: int
    largest_difference: float
    is_int8: bool


def export_model(
    model: Path, out: Path, *, int8: bool = False, encoder: str | None = None
) -> Export:
    """Write a trained model as one ONNX file.

    It takes 16 kHz mono of any length, at least one sample, and gives calibrated
    probabilities: front-end, standardisation, network, softmax and temperature are inside.
    Its metadata hold labels, sampling rate, system, origin and a note on licences, as JSON
    under the key ``koser``.

    Parameters
    ----------
    model : Path
        A run folder or a ``.pth``.
    out : Path
        The ``.onnx`` to write; replaced if it exists, whole or not at all.
    int8 : bool
        Keep weights of matrix products as 8-bit integers: a quarter of the size, and other
        probabilities in the second digit.
    encoder : str, optional
        Where the model's pretrained encoder is now.

    Raises
    ------
    CheckpointError
        If there is no such model, it is too large for one file, `out` cannot be written, or
        what was written differs from the model by more than `TOLERANCE` without `int8`.
    ConfigError
        If the system cannot be one graph.
    """
    trained = load_model(model, encoder=encoder)
    if not isinstance(trained, TorchModel):
        raise CheckpointError(f"'{model}' is an ONNX model already. Give the run it came from.")
    if out.suffix != ".onnx":
        raise CheckpointError(f"'{out}': an ONNX model's name ends in .onnx, or nothing loads it.")
    from koser.systems.graphs import write_graph

    graph = trained.system.to_graph()
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.onnx"
        n_bytes = 4 * sum(parameter.numel() for parameter in graph.parameters())
        if n_bytes > _MAX_BYTES:
            raise CheckpointError(
                f"'{model}' has {n_bytes / 1e9:.1f} GB of weights; one ONNX file holds 2 GB."
            )
        write_graph(
            graph, trained.temperature, plain, input_name=INPUT_NAME, output_name=OUTPUT_NAME
        )
        _write_metadata(plain, trained, is_int8=int8)
        difference = _largest_difference(trained, OnnxModel(plain))
        if difference > TOLERANCE:
            raise CheckpointError(
                f"The exported graph differs from '{model}' by {difference:.1e} in a probability, "
                f"more than {TOLERANCE:g}. Nothing was written. Please report it, with the "
                f"versions of torch and onnxruntime."
            )
        if int8:
            _quantize(plain, trained.system.name)
            difference = _largest_difference(trained, OnnxModel(plain))
        try:
            with replacing(out) as partial:
                partial.write_bytes(plain.read_bytes())
        except OSError as error:
            raise CheckpointError(f"Cannot write '{out}': {error.strerror}.") from error
    return Export(out, out.stat().st_size, difference, int8)


def _write_metadata(path: Path, trained: TorchModel, *, is_int8: bool) -> None:
    import onnx

    graph = onnx.load(path)
    values = {
        "format": FORMAT,
        "system": trained.system.name,
        "labels": list(trained.labels),
        "sampling_rate": SAMPLING_RATE,
        "temperature": trained.temperature,
        "weights": "int8" if is_int8 else "float32",
        "origin": trained.origin,
        "licence": _LICENCE_NOTE,
    }
    onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(values, ensure_ascii=False)})
    graph.producer_name = "koser"
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _quantize(path: Path, system: str) -> None:
    """Turn what was learned of the network's products into 8-bit integers, in place.

    The convolutions of encoders stay as they are: they are few, and runtimes have no fast
    ones on integers.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    graph = onnx.load(path).graph
    learned = {weights.name for weights in graph.initializer}
    kinds = ["Conv", "Gemm"] if system == "mfcc" else ["MatMul", "Gemm"]
    quant_pre_process(path, path, skip_optimization=True, skip_symbolic_shape=True)
    quantize_dynamic(
        path,
        path,
        op_types_to_quantize=kinds,
        # Unsigned: processors without VNNI saturate on products with signed weights.
        weight_type=QuantType.QUInt8,
        # Front-ends are constants, not learned, and their values span 16 orders of magnitude.
        nodes_to_exclude=[
            node.name
            for node in graph.node
            if node.op_type in kinds and learned.isdisjoint(node.input)
        ],
    )


def _largest_difference(one: TorchModel, other: OnnxModel) -> float:
    differences = []
    for waveform in _probes():
        expected, actual = one.predict_waveforms([waveform]), other.predict_waveforms([waveform])
        differences.append(float(np.abs(actual - expected).max()))
    return max(differences)


def _probes() -> list[np.ndarray]:
    """Speech of `PROBE_SECONDS`."""
    n_needed = round(sum(PROBE_SECONDS) * SAMPLING_RATE)
    pieces, n_found = [], 0
    for path in sorted(corpus_folder().glob("*.flac")):
        pieces.append(load(path))
        n_found += len(pieces[-1])
        if n_found >= n_needed:
            break
    ends = np.cumsum([round(seconds * SAMPLING_RATE) for seconds in PROBE_SECONDS])
    return np.split(np.concatenate(pieces)[: ends[-1]], ends[:-1])
