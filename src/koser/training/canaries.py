"""Canaries: corpora on which every honest pipeline fails, and how to see that one does not.

A pipeline that scores above chance where nothing can be recognised has a leak: features that
know the labels, test utterances in training, a batch that gives its class away. What is dealt
here are such corpora; `koser.experiment.canaries` sends a system through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from koser.audio.encoding import encode_flac
from koser.audio.reading import SAMPLING_RATE, Clip, load_clip
from koser.data.assignment import codes
from koser.data.manifest import Manifest
from koser.evaluation.chance import permutation_p_value, uar_above_chance
from koser.features.extraction import clips_of

# An honest pipeline is accused once in a thousand canaries.
ALPHA = 0.001
# Largest difference in a probability, and in a feature relative to the largest one, between two
# extractions. Half precision rounds stored features to 5e-4; padding of a batch adds 1e-4.
TOLERANCE = 0.01
FEATURE_TOLERANCE = 2e-3

NOISE_SECONDS = (0.5, 2.0)  # shortest and longest clip of noise
_MEASURED_CLIPS = 100  # whose mean and variance the noise has

Verdict = Literal["pass", "fail", "not_run"]


@dataclass(frozen=True)
class Canary:
    """What one canary told.

    Attributes
    ----------
    name : str
        ``"permuted_labels"``, ``"noise"`` or ``"invariance"``.
    verdict : Verdict
        Whether the pipeline passed.
    summary : str
        One sentence with its numbers.
    facts : dict
        The numbers by name.
    """

    name: str
    verdict: Verdict
    summary: str
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As it is kept in ``canaries.json``."""
        return asdict(self)


def permute_labels(manifest: Manifest, seed: int) -> tuple[Manifest, bool]:
    """Deal the labels anew, within each speaker where that changes enough of them.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    seed : int
        Of the deal, which depends on the ids and not on the order of the rows.

    Returns
    -------
    Manifest
        The same sounds with other rows' labels, votes and distributions.
    bool
        Whether labels stayed within speakers. They did not where nobody is known, or where
        most speakers have one label only.
    """
    column = manifest.grouping_column
    if column is not None:
        dealt = _deal(manifest, codes(manifest.table[column]), seed)
        n_changed = (dealt.table["label"] != manifest.table["label"]).sum()
        # With seven labels six of seven change; with two, half.
        if n_changed >= len(manifest) / 4:
            return dealt, True
    return _deal(manifest, np.zeros(len(manifest), np.int64), seed), False


def _deal(manifest: Manifest, groups: np.ndarray, seed: int) -> Manifest:
    rng = np.random.default_rng(seed)
    by_id = manifest.table["id"].arg_sort().to_numpy()
    source = np.arange(len(manifest))
    for group in range(int(groups.max()) + 1):
        rows = by_id[groups[by_id] == group]
        source[rows] = rng.permutation(rows)
    given = manifest.table[source.tolist()].select("label", "votes", "distribution")
    return Manifest(manifest.table.with_columns(given.get_columns()), manifest.provenance)


def make_noise(manifest: Manifest, folder: Path, seed: int) -> Manifest:
    """Replace every utterance by white noise, in the order that betrays batches most.

    Mean and variance are those of the corpus, the same for all clips: a clip's own level is
    information. Lengths and texts are dealt anew. Rows and file names are in the order of the
    labels, as those of a folder of label folders are.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    folder : Path
        Where the noise is written: FLAC, 16 kHz.
    seed : int
        Of all that is drawn.

    Raises
    ------
    AudioError
        If the utterances whose level is measured cannot be read.
    """
    rng = np.random.default_rng(seed)
    table = manifest.table.sort("label", "id")
    mean, deviation = _moments(clips_of(table.sort("id")))
    durations = np.clip(rng.permutation(table["duration"].to_numpy()), *NOISE_SECONDS)
    folder.mkdir(parents=True, exist_ok=True)
    paths, seconds = [], []
    for number, duration in enumerate(durations.tolist()):
        n_samples = round(duration * SAMPLING_RATE)
        noise = rng.normal(mean, deviation, n_samples).astype(np.float32)
        path = folder / f"{number:06d}.flac"
        path.write_bytes(encode_flac(noise, SAMPLING_RATE))
        paths.append(str(path))
        seconds.append(n_samples / SAMPLING_RATE)
    n = len(table)
    noisy = table.with_columns(
        pl.Series("path", paths, pl.String),
        pl.Series("duration", seconds, pl.Float64),
        pl.Series("start", [None] * n, pl.Float64),
        pl.Series("end", [None] * n, pl.Float64),
        pl.Series("sampling_rate", [SAMPLING_RATE] * n, pl.Int32),
        pl.Series("n_channels", [1] * n, pl.Int16),
        table["text"].gather(rng.permutation(n).tolist()),
    )
    return Manifest(noisy, manifest.provenance)


def _moments(clips: Sequence[Clip]) -> tuple[float, float]:
    """Mean and standard deviation over the samples of up to `_MEASURED_CLIPS` clips."""
    chosen = np.linspace(0, len(clips) - 1, min(len(clips), _MEASURED_CLIPS)).astype(np.int64)
    n = total = squares = 0.0
    for place in chosen.tolist():
        clip = clips[place]
        waveform = load_clip(clip).astype(np.float64)
        n, total = n + len(waveform), total + waveform.sum()
        squares += np.square(waveform).sum()
    mean = total / n
    return mean, float(np.sqrt(max(squares / n - mean**2, 1e-12)))


def judge_chance(
    name: str,
    label_ids: np.ndarray,
    predicted_ids: np.ndarray,
    cluster_ids: np.ndarray | None,
    *,
    is_within: bool,
    n_labels: int,
    crossed: float = 0.0,
) -> Canary:
    """Whether predictions on a canary corpus are no better than chance.

    Parameters
    ----------
    name : str
        Of the canary.
    label_ids, predicted_ids : np.ndarray [shape=(n_utterances,)]
        Labels as numbers from 0, of all folds together.
    cluster_ids : np.ndarray [shape=(n_utterances,)] or None
        Speakers as numbers from 0.
    is_within : bool
        Whether the labels of this corpus are exchangeable within speakers only.
    n_labels : int
        How many there are.
    crossed : float
        How far the folds are a cross-validation: see `koser.data.assignment.crossed_share`.
    """
    answers = np.eye(n_labels)[predicted_ids]
    found = uar_above_chance(label_ids, answers, cluster_ids, crossed=crossed)
    present, labels = np.unique(label_ids, return_inverse=True)
    within = cluster_ids if is_within else None
    p_value = permutation_p_value(labels, answers[:, present], within, crossed=crossed)
    facts = {
        "uar": found.uar.value,
        "ci95": found.uar.bounds,
        "chance": found.chance,
        "p_value": p_value,
        "n": found.n_utterances,
        "n_speakers": None if cluster_ids is None else found.n_clusters,
        "within_speakers": is_within,
    }
    interval = ""
    if found.uar.bounds is not None:
        interval = " [{:.3f}, {:.3f}]".format(*found.uar.bounds)
    score = (
        f"UAR {found.uar.value:.3f}{interval}, chance {found.chance:.3f} "
        f"(p = {p_value:.4f}, n = {found.n_utterances:,})"
    )
    if p_value > ALPHA:
        return Canary(name, "pass", f"{score}: nothing is recognised where nothing can be.", facts)
    what = f"{score}: recognised where nothing can be, so the pipeline knows the answers."
    return Canary(name, "fail", what, facts)


def judge_invariance(features: float | None, probabilities: float, n_utterances: int) -> Canary:
    """Whether utterances keep their features and probabilities in other company.

    Parameters
    ----------
    features : float or None
        Largest difference of a feature, relative to the largest value; None where a system
        shows none.
    probabilities : float
        Largest difference of a probability.
    n_utterances : int
        How many were compared.
    """
    facts = {
        "feature_difference": features,
        "probability_difference": probabilities,
        "n": n_utterances,
        "tolerance": {"features": FEATURE_TOLERANCE, "probabilities": TOLERANCE},
    }
    stored = "no features" if features is None else f"features by {features:.1e} at most"
    found = (
        f"{n_utterances} utterances in other batches, in another order and alone differ in "
        f"{stored}, in a probability by {probabilities:.1e}"
    )
    is_same = probabilities <= TOLERANCE and (features is None or features <= FEATURE_TOLERANCE)
    if is_same:
        return Canary("invariance", "pass", f"{found}.", facts)
    return Canary(
        "invariance", "fail", f"{found}: a result depends on what is computed beside it.", facts
    )
