"""One sentence for a result: the score, its interval, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

SYNTHETIC = "SYNTHETIC DATA · 합성 데이터"
# Merging labels (koser map) turns a few pluralities over.
_OWN_PLURALITY = 0.95
VOTE_SCORES = {
    "js": "JS divergence to votes (bits)",
    "kl": "KL from votes (nats)",
    "cross_entropy": "cross-entropy to votes (nats)",
    "top1_in_set": "top-1 among raters' first",
}


def score_with_interval(metrics: Mapping[str, Any], name: str) -> str:
    """A score and its 95 % interval, as in ``0.612 [0.540, 0.683]``.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.
    name : str
        Which score.
    """
    value, bounds = metrics[name], metrics["ci95"][name]
    if value is None:
        return "undefined"
    if bounds is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def is_raters_own(raters: Mapping[str, Any]) -> bool:
    """Whether the label is what most raters said, so that each of them helped to decide it."""
    # Runs of earlier versions do not say whose the label is.
    return (raters.get("label_is_plurality", 1.0) or 0.0) >= _OWN_PLURALITY


def human_reference(raters: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any]] | None:
    """Which score of a rater stands on the reference that a system's score does.

    Where the label is the raters' own plurality, a rater helped to decide it, and is held against
    the plurality of the others; where it comes from elsewhere, against the label itself.

    Parameters
    ----------
    raters : Mapping or None
        Of ``metrics.json``.

    Returns
    -------
    tuple[str, Mapping] or None
        Its name, ``"against_others"`` or ``"against_label"``, and the scores; None where there
        are no votes to tell.
    """
    if raters is None:
        return None
    name = "against_others" if is_raters_own(raters) else "against_label"
    human = raters.get(name)
    return (name, human) if human else None


def human_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What a person reaches, beside the scores, on the reference of `human_reference`.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.

    Returns
    -------
    list[tuple[str, str, str]]
        Name, score with interval, and reference; empty where there are no votes to tell.
    """
    found = human_reference(metrics.get("raters"))
    if found is None:
        return []
    name, human = found
    votes = f"{human['n_votes']:,} of {metrics['raters']['n_votes']:,} votes"
    reference = {
        "against_others": f"against the others, {votes}",
        "against_label": "against this label",
    }[name]
    return [
        (f"{title}, one rater", score_with_interval(human, score), reference)
        for title, score in (("UAR", "uar"), ("accuracy", "accuracy"))
    ]


def vote_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Scores against the raters' votes, each beside the prior: the train part's mean votes.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.

    Returns
    -------
    list[tuple[str, str, str]]
        Name, score with interval, and reference; empty where there are no votes.
    """
    votes = metrics.get("votes")
    if not votes:
        return []
    prior = votes.get("prior")
    rows = []
    for name, title in VOTE_SCORES.items():
        reference = f"prior {score_with_interval(prior, name)}" if prior else ""
        rows.append((title, score_with_interval(votes, name), reference))
    return rows


def corpus_line(metrics: Mapping[str, Any]) -> str:
    """Each corpus's own UAR beside the pooled one; blank where there is one corpus.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.
    """
    groups = metrics.get("subgroups", {}).get("corpus", {}).get("groups", ())
    found = [
        f"{each['name']} UAR {score_with_interval(each, 'uar')} (n = {each['n']}, "
        f"{each['n_speakers']} speakers)"
        for each in groups
    ]
    return f"By corpus: {', '.join(found)}" if found else ""


def vote_line(metrics: Mapping[str, Any]) -> str:
    """How many utterances the scores against votes rest on, and what they leave out.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.
    """
    votes = metrics.get("votes")
    if not votes:
        return ""
    levels = ", ".join(f"{each['level']} {each['n']}" for each in votes["levels"])
    return (
        f"Votes of {votes['n']} utterances ({levels}); {votes['n_without_votes']} have none, "
        f"{votes['n_votes_outside']} votes are for other labels"
    )


def gap_line(gap: Mapping[str, Any]) -> str:
    """A gap between two protocols and what its intervals rest on, in one line.

    Such as ``random - speaker: UAR +0.123 [+0.080, +0.160], accuracy +0.101 [+0.070,
    +0.130] (95 %, clustered by speaker)``.

    Parameters
    ----------
    gap : Mapping
        An entry of ``gaps`` in ``gap.json``.
    """
    scores = []
    for title, name in (("UAR", "uar"), ("accuracy", "accuracy")):
        bounds = gap["ci95"][name]
        interval = "" if bounds is None else f" [{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
        scores.append(f"{title} {gap[name]:+.3f}{interval}")
    has_any = any(gap["ci95"].values())
    basis = f"95 %, clustered by {gap['cluster_kind']}" if has_any else "no intervals"
    return f"{gap['first']} - {gap['second']}: {', '.join(scores)} ({basis})"


def without_voice_line(metrics: Mapping[str, Any]) -> str:
    """What metadata and text alone reach under the same split; blank where nothing was probed.

    Such as ``Without the voice: metadata alone UAR 0.385 [0.294, 0.485], text alone UAR 1.000
    [0.692, 1.000]``.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.
    """
    found = []
    for probe in metrics.get("probes", ()):
        if probe["uar"] is not None:
            interval = "" if probe["low"] is None else f" [{probe['low']:.3f}, {probe['high']:.3f}]"
            found.append(f"{probe['name']} alone UAR {probe['uar']:.3f}{interval}")
    return f"Without the voice: {', '.join(found)}" if found else ""


def tuning_line(metrics: Mapping[str, Any]) -> str:
    """The budget of a search for settings, and what it found; blank where there was none.

    Such as ``Settings chosen in each of 4 folds among 12 by speaker+script on its own train and
    val part (4 inner folds, 180 trainings, 9 min): inner UAR 0.641, as given 0.612``.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.
    """
    tuning = metrics.get("tuning")
    if tuning is None:
        return ""
    folds = tuning["folds"]
    chosen = fmean(fold["inner_score"] for fold in folds)
    given = [fold["untuned_inner_score"] for fold in folds]
    known = [value for value in given if value is not None]
    untuned = f", as given {fmean(known):.3f}" if len(known) == len(folds) else ""
    name = {"uar": "UAR", "nll": "log-loss"}[tuning["objective"]]
    budget = (
        f"{tuning['n_inner_folds']} inner folds, {tuning['n_trainings']} trainings, "
        f"{tuning['seconds'] / 60:.0f} min"
    )
    return (
        f"Settings chosen in each of {len(folds)} folds among {tuning['n_trials']} by "
        f"{tuning['inner_protocol']} on its own train and val part ({budget}): inner {name} "
        f"{chosen:.3f}{untuned}"
    )


def stacking_line(metrics: Mapping[str, Any]) -> str:
    """How an ensemble's members were pooled; blank for other systems.

    Such as ``Pooled as 9 inner folds of each train part by speaker+script decide: wav2vec2 0.41
    [0.20 to 0.66], fusion 0.59 [0.34 to 0.80], temperature 0.83; of 50 trainings``, means with the
    smallest and the largest in brackets where there are several.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.
    """
    stacking = metrics.get("stacking")
    if not stacking:
        return ""
    parts = []
    for name in stacking[0]["weights"]:
        values = [each["weights"][name] for each in stacking]
        spread = f" [{min(values):.2f} to {max(values):.2f}]" if len(values) > 1 else ""
        parts.append(f"{name} {fmean(values):.2f}{spread}")
    temperature = fmean(each["temperature"] for each in stacking)
    n_inner = len(stacking[0]["inner_folds"])
    return (
        f"Pooled as {n_inner} inner folds of each train part by {stacking[0]['inner_protocol']} "
        f"decide: {', '.join(parts)}, temperature {temperature:.2f}; {len(stacking)} trainings"
    )


def protocol_line(metrics: Mapping[str, Any]) -> str:
    """What a score rests on: protocol, grouping, n, speakers, folds, seeds."""
    protocol = metrics["protocol"]
    n_speakers, kind = metrics["n_speakers"], metrics["cluster_kind"]
    if n_speakers is None:
        speakers = "speakers unknown"
    else:
        speakers = f"{n_speakers} speakers" if kind == "speaker" else f"{n_speakers} × {kind}"
    n_folds = protocol["n_folds"]
    return ", ".join(
        [
            f"split {protocol['protocol']}",
            f"n = {metrics['n']}",
            speakers,
            f"{n_folds} folds" if n_folds > 1 else "one split",
            f"seeds {', '.join(str(seed) for seed in metrics['seeds'])}",
        ]
    )


def headline(metrics: Mapping[str, Any]) -> str:
    """UAR and accuracy beside their reference levels, and what they rest on, in two lines."""
    scores = (
        f"UAR {score_with_interval(metrics, 'uar')} (chance {metrics['chance_uar']:.3f}), "
        f"accuracy {score_with_interval(metrics, 'accuracy')} "
        f"(majority {metrics['majority_accuracy']:.3f})"
    )
    mark = f"{SYNTHETIC}: " if metrics["is_synthetic"] else ""
    return f"{mark}{scores}\n{protocol_line(metrics)}"
