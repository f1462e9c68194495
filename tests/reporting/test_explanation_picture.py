"""The picture of an explanation shows what the explanation says."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile
from matplotlib.colors import to_hex

from koser.audio.reading import Clip
from koser.inference.explanation import Cell, Explanation, Word
from koser.inference.prediction import Prediction
from koser.reporting.canvas import BLUE, VERMILION
from koser.reporting.explanation import draw_explanation


@pytest.fixture
def clip(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(8000, 0.1, np.float32), 16_000)
    return Clip(str(tmp_path / "a.wav"))


def explanation(words=()):
    cells = tuple(
        Cell(0.1 * place, 0.1 * (place + 1), value)
        for place, value in enumerate((0.5, -0.25, 0.0, 1.0, -1.0))
    )
    prediction = Prediction("angry", {"angry": 0.8, "neutral": 0.2}, 0.5)
    return Explanation(prediction, cells, words)


def test_bars_are_the_evidence_and_their_colour_its_sign(clip):
    figure = draw_explanation(explanation(), clip)
    bars = figure.axes[1].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([0.5, -0.25, 0.0, 1.0, -1.0])
    assert [bar.get_x() for bar in bars] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    colours = [to_hex(bar.get_facecolor()) for bar in bars]
    assert colours == [BLUE, VERMILION, BLUE, BLUE, VERMILION]


def test_every_word_is_there_with_its_number_and_within_the_picture(clip):
    words = tuple(Word(f"단어{place}", place - 12.5) for place in range(25))
    figure = draw_explanation(explanation(words), clip)
    texts = {text.get_text(): text for text in figure.axes[2].texts}
    for word in words:
        assert texts[word.text].get_position()[0] < 1
        assert f"{word.evidence:+.2f}" in texts
    rows = {texts[word.text].get_position()[1] for word in words}
    assert len(rows) > 1
    figure.canvas.draw()
    for first, second in pairwise(words):
        left, right = (texts[each.text].get_window_extent() for each in (first, second))
        assert left.x1 < right.x0 or left.y0 > right.y1  # beside each other, or a row further


def test_without_words_there_is_no_row_for_them(clip):
    assert len(draw_explanation(explanation(), clip).axes) == 2
