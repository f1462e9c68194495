import numpy as np
import pytest

from koser.training.options import TrainOptions, learning_rate_at


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    options = TrainOptions(learning_rate=3e-3)
    rates = [learning_rate_at(share, options) for share in np.linspace(0, 1, 101)]
    peak = int(np.argmax(rates))
    assert peak == round(options.warmup * 100)
    assert rates[peak] == pytest.approx(options.learning_rate)
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
