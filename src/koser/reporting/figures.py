"""How numbers are written in reports and tables: the same everywhere, in both languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "–"

Bounds = Sequence[float] | None


def score(value: float | None, bounds: Bounds = None) -> str:
    """A score in [0, 1] and its interval.

    Examples
    --------
    >>> score(0.6118, [0.54, 0.6831]), score(None)
    ('0.612 [0.540, 0.683]', '–')
    """
    if value is None:
        return MISSING
    return f"{value:.3f}" if bounds is None else f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def percent(value: float | None, bounds: Bounds = None) -> str:
    """A share in percent and its interval.

    Examples
    --------
    >>> percent(0.7498, [0.712, 0.781])
    '74.98 % [71.2, 78.1]'
    """
    if value is None:
        return MISSING
    text = f"{100 * value:.2f} %"
    return text if bounds is None else f"{text} [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def points(value: float | None, bounds: Bounds = None) -> str:
    """A difference of shares in percentage points and its interval.

    Examples
    --------
    >>> points(-0.0199, [-0.044, 0.006]), points(0.0)
    ('-1.99 [-4.4, +0.6]', '+0.00')
    """
    if value is None:
        return MISSING
    text = f"{100 * value:+.2f}"
    return text if bounds is None else f"{text} [{100 * bounds[0]:+.1f}, {100 * bounds[1]:+.1f}]"


def p_value(value: float | None) -> str:
    """A p-value; one below 0.001 only as that.

    Examples
    --------
    >>> p_value(0.0312), p_value(0.0002), p_value(None)
    ('0.031', '< 0.001', '–')
    """
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float | None) -> str:
    """A number of things; of a mean over folds, one decimal.

    Examples
    --------
    >>> count(1200), count(1199.5), count(None)
    ('1,200', '1,199.5', '–')
    """
    if value is None:
        return MISSING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def span(seconds: float | None) -> str:
    """A length of time.

    Examples
    --------
    >>> span(0.8), span(75), span(7_380)
    ('0.8 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds is None:
        return MISSING
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def magnitude(value: float | None) -> str:
    """A large count in thousands or millions.

    Examples
    --------
    >>> magnitude(94_371_712), magnitude(215_047), magnitude(812)
    ('94.4 M', '215 k', '812')
    """
    if value is None:
        return MISSING
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:,.0f}"


def parameters(cost: Mapping[str, Any]) -> str:
    """The parameters of a system, and what could not be counted.

    Examples
    --------
    >>> parameters({"n_parameters": 118_500_000, "parameters_beside": "Whisper small"})
    '118.5 M + Whisper small'
    """
    beside = cost.get("parameters_beside")
    return magnitude(cost.get("n_parameters")) + (f" + {beside}" if beside else "")


def megabytes(value: float | None) -> str:
    """An amount of memory, given in MB (10^6 bytes).

    Examples
    --------
    >>> megabytes(812.4), megabytes(2_140.0)
    ('812 MB', '2.1 GB')
    """
    if value is None:
        return MISSING
    return f"{value / 1e3:.1f} GB" if value >= 1e3 else f"{value:.0f} MB"
