"""Systems as graphs say what the systems say, for every encoder and any length."""

import numpy as np
import pytest
import torch

from fixtures.encoders import KINDS
from fixtures.recognizers import speech
from fixtures.speech_systems import VARIANTS, speech_system
from koser.errors import ConfigError
from koser.systems.graphs import CalibratedGraph
from koser.systems.system import System

# Less than a frame, one frame, a clip, and several windows of 8 s.
LENGTHS = (1, 320, 401, 30_001, 16 * 16_000 + 3)


@pytest.fixture(scope="module")
def sound():
    return speech(17)


def probabilities_of(graph, waveform):
    with torch.inference_mode():
        return CalibratedGraph(graph, 1.0)(torch.from_numpy(waveform)).numpy()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_has_the_systems_probabilities(kind, variant, encoder_folder, sound):
    system = speech_system(variant, encoder_folder(kind))
    before = system.predict_waveforms([sound[:30_001]])
    graph = system.to_graph()
    spread = []
    for length in LENGTHS:
        expected = system.predict_waveforms([sound[:length]])[0]
        actual = probabilities_of(graph, sound[:length])
        # Half-precision features may round to the other side of a half.
        np.testing.assert_allclose(actual, expected, atol=2e-5)
        spread.append(expected)
    assert np.ptp(spread, axis=0).max() > 1e-3  # there is something to get wrong
    # Making a graph leaves the system as it was.
    np.testing.assert_array_equal(system.predict_waveforms([sound[:30_001]]), before)


def test_a_temperature_divides_the_logits(sound):
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    graph = CalibratedGraph(lambda _: logits, 4.0)
    expected = (logits[0] / 4).softmax(0)
    torch.testing.assert_close(graph(torch.from_numpy(sound)), expected)


def test_a_system_that_needs_more_than_sound_says_so():
    class WithText(System):
        name = "with-text"

    WithText.__abstractmethods__ = frozenset()
    with pytest.raises(ConfigError, match="'with-text' cannot be exported"):
        WithText(("a", "b"), None).to_graph()
