"""What every picture of a run shares: header, colours, Korean font, the file.

Through matplotlib's object API: no pyplot, no global style, no display.
"""

from __future__ import annotations

import functools
import importlib.util
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

from koser.errors import RunError
from koser.files import replacing
from koser.reporting.wording import SYNTHETIC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
INK, FAINT_INK, LINE, PAPER = "#1f2933", "#5f6c7b", "#9aa5b1", "white"
FAINT_LINE = "#e4e7eb"
WARNING = "#b42318"
# Okabe & Ito's colours, which are told apart with every kind of colour vision.
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"

TITLE_SIZE, SUBTITLE_SIZE = 14, 9.5  # points
# DejaVu, which comes with matplotlib, has what few Korean fonts have, such as the minus.
_HANGUL = "koser NanumGothic"
_FAMILIES = (_HANGUL, "DejaVu Sans")
_LINE_HEIGHT = 0.2  # inches of a line of the subtitle


def new_figure(
    size: tuple[float, float], title: str, subtitle: str, is_synthetic: bool
) -> tuple[Figure, float]:
    """An empty figure with its header, and where the header ends.

    Parameters
    ----------
    size : tuple[float, float]
        Width and height in inches of what comes below the header.
    title, subtitle : str
        Text of the header. The subtitle is wrapped.
    is_synthetic : bool
        Whether the header begins with a mark of synthetic data.

    Returns
    -------
    tuple[Figure, float]
        The figure, higher than `size` by its header, and the share of its height that
        is below the header.
    """
    from matplotlib.figure import Figure

    width, height = size
    # A Latin character is about half as wide as high.
    n_columns = int((width - 0.5) * 72 / (0.5 * SUBTITLE_SIZE))
    lines = [part for line in subtitle.splitlines() for part in _wrap(line, n_columns)]
    mark = 0.34 if is_synthetic else 0.0
    header = 0.62 + mark + _LINE_HEIGHT * len(lines)
    height += header
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    left, y = 0.25 / width, height - 0.2
    if is_synthetic:
        badge = {"boxstyle": "round,pad=0.35", "facecolor": WARNING, "edgecolor": "none"}
        figure.text(
            left + 0.06 / width,
            (y - 0.06) / height,
            SYNTHETIC,
            va="top",
            size=10.5,
            weight="bold",
            color=PAPER,
            bbox=badge,
        )
        y -= mark + 0.06
    figure.text(left, y / height, title, va="top", size=TITLE_SIZE, weight="bold", color=INK)
    figure.text(
        left,
        (y - 0.32) / height,
        "\n".join(lines),
        va="top",
        size=SUBTITLE_SIZE,
        color=FAINT_INK,
        linespacing=1.4,
    )
    return figure, 1 - header / height


def set_fonts(figure: Figure) -> None:
    """Give every text of a finished figure a font that has Hangul.

    Parameters
    ----------
    figure : Figure
        With everything in it that it will have.

    Raises
    ------
    ModuleNotFoundError
        If the package that brings the font is not installed.
    """
    from matplotlib.text import Text

    _register_fonts()
    for text in figure.findobj(Text):
        text.set_fontfamily(list(_FAMILIES))


def write_png(figure: Figure, path: Path) -> None:
    """Write `figure` at `DPI`; a reader of `path` sees the old file or the whole new one.

    Parameters
    ----------
    figure : Figure
        What to write.
    path : Path
        Where; missing folders are made.

    Raises
    ------
    RunError
        If `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            figure.savefig(partial, format="png", dpi=DPI)
    except OSError as error:
        raise RunError(f"Cannot write the picture '{path}': {error}.") from error


def _wrap(line: str, n_columns: int) -> list[str]:
    """`line` in parts of at most `n_columns`, of which a Hangul character takes two."""
    filler = "\0"  # stands beside a wide character while it is measured
    padded = "".join(char + filler if east_asian_width(char) in "WF" else char for char in line)
    return [part.replace(filler, "") for part in textwrap.wrap(padded, n_columns)]


@functools.cache
def _register_fonts() -> None:
    """Tell matplotlib of the Korean font, under a name of our own.

    The package's own way, importing it, would change matplotlib's settings for the whole
    program. And its bold files do not call themselves bold, so that asking for bold warns.
    """
    from matplotlib import font_manager

    name = "koreanize_matplotlib"
    package = importlib.util.find_spec(name)
    if package is None or package.origin is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    folder = Path(package.origin).parent / "fonts"
    for file, weight in (("NanumGothic.ttf", "normal"), ("NanumGothicExtraBold.ttf", "bold")):
        entry = font_manager.FontEntry(
            fname=str(folder / file),
            name=_HANGUL,
            style="normal",
            variant="normal",
            weight=weight,
            stretch="normal",
            size="scalable",
        )
        font_manager.fontManager.ttflist.append(entry)
