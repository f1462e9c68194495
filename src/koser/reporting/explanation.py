"""A picture of an explanation: the waveform, what each moment was worth, and each word."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koser.audio.reading import SAMPLING_RATE, Clip, load_clip
from koser.inference.explanation import Explanation
from koser.labels import KOREAN
from koser.reporting.canvas import (
    BLUE,
    FAINT_INK,
    FAINT_LINE,
    INK,
    LINE,
    PAPER,
    VERMILION,
    new_figure,
    set_fonts,
    write_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 11.0, 3.6  # inches of the two panels
_ROW = 0.62  # inches of a row of words
_N_COLUMNS = 1600
_STRONG = 0.85  # opacity of the largest evidence


def plot_explanation(explanation: Explanation, clip: Clip, path: Path) -> None:
    """Write what `draw_explanation` returns as PNG.

    Raises
    ------
    RunError, AudioError
        If the picture cannot be written, or the clip not be read any more.
    """
    write_png(draw_explanation(explanation, clip), path)


def draw_explanation(explanation: Explanation, clip: Clip) -> Figure:
    """Waveform and evidence over time, and the words of the transcript below.

    Blue speaks for the recognised label, orange against it; bars go up and down as well, so
    that nothing rests on colour alone.

    Parameters
    ----------
    explanation : Explanation
        Of `clip`.
    clip : Clip
        Read again for its waveform.
    """
    found = explanation.prediction
    name = f"{KOREAN[found.best]} {found.best}" if found.best in KOREAN else found.best
    subtitle = (
        f"{name}: 확률 probability {found.confidence:.3f}\n"
        f"가린 구간·단어가 이 라벨의 로그 오즈에서 차지하던 몫 "
        f"(what the log-odds of this label lose without a moment or a word, in nats)"
    )
    rows = _wrapped([word.text for word in explanation.words])
    height = _HEIGHT + _ROW * len(rows)
    figure, top = new_figure((_WIDTH, height), Path(clip.path).name, subtitle, is_synthetic=False)
    heights = [1.0, 1.0, *([_ROW * len(rows) / (0.4 * _HEIGHT)] if rows else [])]
    grid = figure.add_gridspec(
        len(heights),
        1,
        left=0.07,
        right=0.98,
        bottom=0.06 if rows else 0.14,
        top=top,
        hspace=0.6 if rows else 0.25,
        height_ratios=heights,
    )
    _draw_waveform(figure.add_subplot(grid[0]), explanation, clip)
    _draw_evidence(figure.add_subplot(grid[1]), explanation)
    if rows:
        _draw_words(figure.add_subplot(grid[2]), explanation, rows)
    set_fonts(figure)
    return figure


def _draw_waveform(axes: Axes, explanation: Explanation, clip: Clip) -> None:
    waveform = load_clip(clip)
    starts = np.arange(0, len(waveform), max(1, len(waveform) // _N_COLUMNS))
    lows, highs = np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)
    axes.fill_between(starts / SAMPLING_RATE, lows, highs, color=INK, linewidth=0, zorder=2)
    largest = max((abs(cell.evidence) for cell in explanation.cells), default=0.0)
    for cell in explanation.cells:
        axes.axvspan(
            cell.start,
            cell.end,
            color=_colour(cell.evidence),
            alpha=_STRONG * abs(cell.evidence) / largest if largest else 0.0,
            linewidth=0,
            zorder=1,
        )
    reach = max(1e-3, float(np.abs(waveform).max()))
    axes.set_ylim(-1.08 * reach, 1.08 * reach)
    axes.set_yticks([])
    axes.set_ylabel("파형 waveform", color=FAINT_INK, size=9)
    _style(axes, explanation.prediction.duration)
    axes.tick_params(labelbottom=False)


def _draw_evidence(axes: Axes, explanation: Explanation) -> None:
    cells = explanation.cells
    axes.bar(
        [cell.start for cell in cells],
        [cell.evidence for cell in cells],
        width=[cell.end - cell.start for cell in cells],
        align="edge",
        color=[_colour(cell.evidence) for cell in cells],
    )
    axes.axhline(0, color=LINE, linewidth=0.8)
    axes.grid(axis="y", color=FAINT_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_ylabel("근거 evidence (nats)", color=FAINT_INK, size=9)
    axes.set_xlabel("시간 time (s)", color=FAINT_INK, size=9)
    _style(axes, explanation.prediction.duration)


def _draw_words(axes: Axes, explanation: Explanation, rows: list[list[int]]) -> None:
    """The transcript as it is read, each word on its colour, its number below it."""
    words = explanation.words
    largest = max(abs(word.evidence) for word in words) or 1.0
    axes.set_xlim(0, 1)
    axes.set_ylim(len(rows), 0)
    axes.set_axis_off()
    for number, row in enumerate(rows):
        x = 0.0
        for place in row:
            word = words[place]
            box = {
                "boxstyle": "round,pad=0.3",
                "facecolor": _mixed(_colour(word.evidence), abs(word.evidence) / largest),
                "edgecolor": LINE,
                "linewidth": 0.6,
            }
            width = _columns(word.text) / _ROW_COLUMNS
            middle = x + width / 2
            axes.text(
                middle, number + 0.35, word.text, ha="center", va="center", size=10.5, bbox=box
            )
            axes.text(
                middle,
                number + 0.82,
                f"{word.evidence:+.2f}",
                ha="center",
                va="center",
                size=8,
                color=FAINT_INK,
            )
            x += width


_ROW_COLUMNS = 105  # widths of a Latin character in a row


def _columns(word: str) -> int:
    """Room that a word takes, with its box; a Hangul character is twice as wide as a Latin one."""
    return sum(2 if ord(letter) > 0x1100 else 1 for letter in word) + 4


def _wrapped(words: list[str]) -> list[list[int]]:
    """Places of the words in each row."""
    rows: list[list[int]] = []
    filled = _ROW_COLUMNS
    for place, word in enumerate(words):
        if filled + _columns(word) > _ROW_COLUMNS:
            rows.append([])
            filled = 0
        rows[-1].append(place)
        filled += _columns(word)
    return rows


def _colour(evidence: float) -> str:
    return BLUE if evidence >= 0 else VERMILION


def _mixed(colour: str, share: float) -> tuple[float, ...]:
    """A colour on paper, at most half of it, so that ink stays legible."""
    from matplotlib.colors import to_rgb

    paper, full = np.array(to_rgb(PAPER)), np.array(to_rgb(colour))
    return tuple((paper + 0.5 * share * (full - paper)).tolist())


def _style(axes: Axes, duration: float) -> None:
    axes.set_xlim(0, duration)
    axes.set_facecolor(PAPER)
    axes.tick_params(colors=FAINT_INK, labelsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
