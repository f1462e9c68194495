"""The picture of a timeline shows what the timeline says."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile

from fixtures.recognizers import LABELS, LoudnessModel, speech
from koser.errors import AudioError, RunError
from koser.inference.recognizer import Recognizer
from koser.inference.timeline import Timeline, make_timeline
from koser.reporting.timeline import _envelope, draw_timeline, plot_timeline

RATE = 16_000


@pytest.fixture
def timeline(tmp_path):
    soundfile.write(tmp_path / "통화.wav", speech(20), RATE, subtype="FLOAT")
    return make_timeline(Recognizer(LoudnessModel(), threshold=0.45), tmp_path / "통화.wav")


def test_every_segment_has_its_band_and_every_label_its_curve(timeline):
    figure = draw_timeline(timeline)
    waveform, curves = figure.axes
    bands = [(each.get_x(), each.get_x() + each.get_width()) for each in waveform.patches]
    told = [each for each in timeline.segments if each.label is not None]
    assert len(told) < len(timeline.segments)  # where it abstains there is no band
    np.testing.assert_allclose(bands, [(each.start, each.end) for each in told])
    colours = {line.get_label().split()[-1]: line.get_color() for line in curves.get_lines()}
    assert list(colours) == list(LABELS)
    assert len(set(colours.values())) == len(LABELS)
    for label, line in zip(LABELS, curves.get_lines(), strict=True):
        times, values = line.get_data()
        cells = [cell for cell in timeline.cells for _ in range(2)]
        heard = ~np.isnan(values)
        assert values[heard] == pytest.approx([cell.probabilities[label] for cell in cells])
        assert times[heard][::2] == pytest.approx([cell.start for cell in timeline.cells])
        # The line is broken where nobody speaks.
        n_gaps = sum(one[1] < other[0] for one, other in pairwise(timeline.speech))
        assert np.sum(~heard) == n_gaps
    texts = [text.get_text() for text in figure.texts]
    assert "통화.wav" in texts


@pytest.mark.parametrize("n_samples", [1, 999, 1600, 1601, 163_217])
def test_the_envelope_is_the_extremes_of_every_column(tmp_path, n_samples):
    sound = np.random.default_rng(0).uniform(-1, 1, n_samples).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    times, lows, highs = _envelope(str(tmp_path / "a.wav"), n_samples / RATE)
    assert len(times) <= 1600
    width = -(-n_samples // 1600)
    for place, (low, high) in enumerate(zip(lows, highs, strict=True)):
        column = sound[place * width : (place + 1) * width]
        assert (low, high) == (column.min(), column.max())


def test_a_picture_is_written_whole(timeline, tmp_path):
    plot_timeline(timeline, tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_timeline_without_its_file_is_refused(timeline, tmp_path):
    with pytest.raises(RunError, match="not one of a file"):
        draw_timeline(Timeline(**{**vars(timeline), "path": None}))
    (tmp_path / "통화.wav").unlink()
    with pytest.raises(AudioError, match="No audio file"):
        draw_timeline(timeline)
