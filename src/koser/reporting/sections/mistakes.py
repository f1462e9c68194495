"""The worst mistakes, and what they sound like, where that may be passed on."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from koser.audio.encoding import encode_flac
from koser.audio.reading import SAMPLING_RATE, Clip, load_clip
from koser.errors import AudioError
from koser.reporting.language import Phrases

N_SHOWN = 12
# A report has to fit into a mail: a clip is cut, and all together have a limit.
MAX_CLIP_SECONDS = 6.0
MAX_TOTAL_BYTES = 2_000_000


@dataclass(frozen=True)
class Mistake:
    """An utterance that was recognised wrongly and confidently.

    Attributes
    ----------
    id : str
        The utterance.
    true, predicted : str
        Reference and answer, in the report's language.
    confidence, of_true : str
        Probabilities of the answer and of the reference.
    duration : str
        In seconds.
    audio : str
        A data URI of its first seconds; empty where there is none.
    why_silent : str
        Why it has none although it was asked for.
    """

    id: str
    true: str
    predicted: str
    confidence: str
    of_true: str
    duration: str
    audio: str = ""
    why_silent: str = ""


def worst_mistakes(predictions: pl.DataFrame, t: Phrases, *, n_clips: int) -> list[Mistake]:
    """The most confident wrong answers, each utterance once.

    Parameters
    ----------
    predictions : pl.DataFrame
        The content of ``predictions.parquet``.
    t : Phrases
        The language.
    n_clips : int >= 0
        How many of them are given with their sound, from the worst on.
    """
    worst = worst_rows(predictions).head(N_SHOWN)
    found, n_bytes = [], 0
    for number, row in enumerate(worst.iter_rows(named=True)):
        sound: dict[str, str] = {}
        if number < n_clips:
            sound = _sound(row, t, room=MAX_TOTAL_BYTES - n_bytes)
            n_bytes += len(sound.get("audio", ""))
        found.append(_mistake(row, t, sound))
    return found


def worst_rows(predictions: pl.DataFrame) -> pl.DataFrame:
    """Wrong answers from the most confident on, each utterance once.

    Parameters
    ----------
    predictions : pl.DataFrame
        The content of ``predictions.parquet``.

    Returns
    -------
    pl.DataFrame
        The same columns, and ``confidence`` and ``of_true``: probabilities of the answer
        and of the reference.
    """
    wrong = predictions.filter(pl.col("label") != pl.col("predicted"))
    columns = [column for column in wrong.columns if column.startswith("p_")]
    place = {column.removeprefix("p_"): number for number, column in enumerate(columns)}
    probabilities = wrong.select(columns).to_numpy()
    true = np.array([place[label] for label in wrong["label"]], dtype=int)
    return (
        wrong.with_columns(
            confidence=pl.max_horizontal(columns),
            of_true=pl.Series(probabilities[np.arange(len(true)), true]),
        )
        .sort("confidence", "id", descending=[True, False])
        .unique("id", keep="first", maintain_order=True)
    )


def _mistake(row: Mapping[str, Any], t: Phrases, sound: Mapping[str, str]) -> Mistake:
    return Mistake(
        id=row["id"],
        true=t.label(row["label"]),
        predicted=t.label(row["predicted"]),
        confidence=f"{row['confidence']:.3f}",
        of_true=f"{row['of_true']:.3f}",
        duration=f"{row['duration']:.1f} s",
        **sound,
    )


def _sound(row: Mapping[str, Any], t: Phrases, *, room: int) -> dict[str, str]:
    try:
        # Runs from before manifests had channels do not say any.
        waveform = load_clip(Clip(row["path"], row["start"], row["end"], row.get("channel")))
    except AudioError as error:  # the corpus may have moved since; the report is still right
        return {"why_silent": str(error)}
    content = encode_flac(waveform[: round(MAX_CLIP_SECONDS * SAMPLING_RATE)], SAMPLING_RATE)
    uri = f"data:audio/flac;base64,{base64.b64encode(content).decode()}"
    return {"audio": uri} if len(uri) <= room else {"why_silent": t["mistakes.no_room"]}
