"""What surrounds a model of values: batches of bounded length, and who is told apart."""

from itertools import chain

import numpy as np
import pytest

from fixtures.recognizers import mfcc_checkpoint
from koser.errors import CheckpointError
from koser.inference.values import Regressor, gives_values, load_regressor

RATE = 16_000


class LengthSystem:
    """Values that are a waveform's length in seconds, and minus that."""

    def __init__(self):
        self.batches = []

    def predict_waveforms(self, waveforms):
        seconds = np.array([len(waveform) / RATE for waveform in waveforms])
        self.batches.append(seconds.tolist())
        return np.stack([seconds, -seconds], axis=1)


def test_values_keep_their_order_and_long_sound_does_not_pad_short():
    system, lengths = LengthSystem(), [1, 300, 2, 1, 100, 40, 50]
    waveforms = [np.zeros(RATE * seconds, np.float32) for seconds in lengths]
    values = Regressor(system).predict_waveforms(waveforms)
    np.testing.assert_array_equal(values, np.stack([lengths, np.negative(lengths)], axis=1))
    assert sorted(chain.from_iterable(system.batches)) == sorted(lengths)
    assert any(len(batch) > 1 for batch in system.batches)
    for batch in system.batches:
        assert len(batch) == 1 or len(batch) * max(batch) <= 120
    assert Regressor(system).predict_waveforms([]).shape == (0, 2)


def test_a_model_of_labels_is_told_from_one_of_values(tmp_path):
    mfcc_checkpoint().write(tmp_path / "best_model_mfcc.pth")
    assert not gives_values(tmp_path)
    assert not gives_values(tmp_path / "gone.onnx")  # whoever loads it says so
    with pytest.raises(CheckpointError, match=r"model of labels .*Use koser\.load_recognizer"):
        load_regressor(tmp_path)
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        gives_values(tmp_path / "gone.pth")
