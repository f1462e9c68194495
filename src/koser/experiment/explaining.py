"""What a run's worst mistakes rest on, found by the very models that made them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from koser.audio.reading import Clip, load_clip
from koser.errors import AudioError, RunError
from koser.experiment.enrolled import refuse_enrolled
from koser.files import write_json
from koser.inference.explanation import explain
from koser.inference.recognizer import Recognizer, load_recognizer
from koser.reporting.runs import RunFolder
from koser.reporting.sections.evidence import EXPLANATIONS, N_OUTLINE
from koser.reporting.sections.mistakes import worst_rows

Loader = Callable[[Path], Recognizer]


def explain_mistakes(
    folder: Path,
    n: int,
    *,
    load: Loader = load_recognizer,
    on_clip: Callable[[int, int], None] | None = None,
) -> Path:
    """Explain a run's most confident wrong answers, and leave it in the folder for its report.

    An utterance is given to the training that had it in its test part: no model explains
    what it learnt from.

    Parameters
    ----------
    folder : Path
        A finished run with its ``parts/``.
    n : int > 0
        How many mistakes, from the worst on.
    load : Callable, optional
        How a training's folder becomes a recognizer: where its pretrained models were moved.
    on_clip : Callable, optional
        Told how many are done, and of how many.

    Returns
    -------
    Path
        ``explanations.json``: by utterance, the evidence, or why there is none.

    Raises
    ------
    RunError
        If the folder is no run, or a training's model is not in it.
    """
    run = RunFolder.read(folder)
    refuse_enrolled(run, "koser report --explain")
    rows = worst_rows(run.predictions).head(n).to_dicts()
    loaded: dict[Path, Recognizer] = {}
    found = {}
    for number, row in enumerate(rows):
        part = folder / "parts" / f"seed{row['seed']}-fold{row['fold']:02d}"
        if not part.is_dir():
            raise RunError(
                f"'{folder}' has no '{part.relative_to(folder)}', whose model made the mistake "
                f"'{row['id']}'. Only a training's own run can be explained, not a test on other "
                f"data, and not without its parts/."
            )
        if part not in loaded:
            loaded.clear()  # one model at a time
            loaded[part] = load(part)
        found[row["id"]] = _explained(loaded[part], row)
        if on_clip is not None:
            on_clip(number + 1, len(rows))
    path = folder / EXPLANATIONS
    write_json(found, path)
    return path


def _explained(recognizer: Recognizer, row: Mapping[str, Any]) -> dict[str, Any]:
    clip = Clip(row["path"], row["start"], row["end"], row.get("channel"))
    try:
        explanation = explain(recognizer, clip)
        waveform = load_clip(clip)
    except AudioError as error:  # too long, or the corpus has moved since
        return {"why_not": str(error)}
    values = explanation.to_dict()
    return {
        "label": explanation.prediction.best,
        "duration": explanation.prediction.duration,
        "cells": values["cells"],
        "words": values["words"],
        "outline": [
            round(float(np.abs(stretch).max()), 3)
            for stretch in np.array_split(waveform, min(N_OUTLINE, len(waveform)))
        ],
    }
