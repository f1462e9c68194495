"""The one model that a run keeps beside those of its trainings, and what it has learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koser.inference.recognizer import Recognizer, load_recognizer
from koser.reporting.runs import RunFolder, read_json


def load_kept(
    run: RunFolder, *, places: Mapping[str, str], store_root: Path | None = None
) -> Recognizer:
    """A run's kept model.

    Parameters
    ----------
    run : RunFolder
        The run.
    places : Mapping[str, str]
        Where pretrained models are now, if they were moved: ``encoder``, ``whisper``,
        ``text_model``.
    store_root : Path, optional
        Folder of the stores, where what its Whisper hears is then kept.

    Raises
    ------
    CheckpointError, EncoderError
        As `load_recognizer`.
    """
    recognizer = load_recognizer(
        run.folder,
        encoder=places.get("encoder"),
        whisper=places.get("whisper"),
        text_model=places.get("text_model"),
    )
    if store_root is not None:
        recognizer.keep_transcripts(store_root)
    return recognizer


def describe_kept(run: RunFolder, origin: Mapping[str, object]) -> dict[str, Any]:
    """Which of a run's trainings its kept model is, and how much of the corpus that one knows.

    Parameters
    ----------
    run : RunFolder
        The run.
    origin : Mapping
        Of the model.

    Returns
    -------
    dict
        ``fold`` and ``seed``; ``n_trainings``; ``is_chosen``, whether a val score chose among
        them, as else it is the first; ``n_train`` utterances of ``n_corpus`` that the run had,
        None where the run does not say.
    """
    fold, seed = origin.get("fold"), origin.get("seed")
    trainings = run.metrics["folds"]
    own = [each for each in trainings if (each["fold"], each["seed"]) == (fold, seed)]
    return {
        "fold": fold,
        "seed": seed,
        "n_trainings": len(trainings),
        "is_chosen": any(each.get("best_val_uar") is not None for each in trainings),
        "n_train": own[0].get("n_train") if own else None,
        "n_corpus": read_json(run.folder / "data.json").get("n_utterances"),
    }


def why_kept(kept: Mapping[str, Any]) -> str:
    """Why this training and no other, as part of a sentence."""
    if kept["is_chosen"]:
        return "the best on its val part"
    return "the first, as there is no val score to choose by"


def learnt_from(kept: Mapping[str, Any], corpora: str) -> str:
    """How much of its corpora a model has learnt from, as part of a sentence; or nothing."""
    if kept["n_train"] is None or kept["n_corpus"] is None:
        return ""
    n_train, n_corpus = f"{kept['n_train']:,}", f"{kept['n_corpus']:,}"
    return f"has learnt from {n_train} of the {n_corpus} utterances of {corpora}"
