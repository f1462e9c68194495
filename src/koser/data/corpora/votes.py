"""From several raters to one label: the label policies.

The votes are never weighted by intensity: in AI Hub 263 it is 0 exactly where a rater said
neutral, so that an intensity-weighted vote could not choose neutral at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from koser.errors import ConfigError
from koser.labels import ordered_labels


@dataclass(frozen=True, slots=True)
class Vote:
    """What one rater heard.

    Attributes
    ----------
    label : str
        Emotion, under koser's name for it.
    intensity : int or None
        As the corpus counts it (AI Hub 263: 0, only for neutral, to 2); None where there is
        none, or it is unusable.
    """

    label: str
    intensity: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The label a policy gives to an utterance, or why it gives none.

    Attributes
    ----------
    label : str or None
        The chosen label.
    reason, detail : str
        Why there is none; empty where there is one.
    """

    label: str | None
    reason: str = ""
    detail: str = ""


def check_policy(
    policy: str, min_votes: int | None, *, policies: Sequence[str], n_raters: int
) -> None:
    """Refuse a label policy that a corpus does not have or `min_votes` it does not take.

    Parameters
    ----------
    policy : str
        What was asked for.
    min_votes : int or None
        How many raters must have chosen the label.
    policies : Sequence[str]
        The corpus's label policies.
    n_raters : int
        Raters of each utterance.

    Raises
    ------
    ConfigError
        If `policy` is not one of `policies`, or `min_votes` is given to another policy than
        ``"majority"`` or lies outside 1 to `n_raters`.
    """
    if policy not in policies:
        raise ConfigError(f"Unknown label policy '{policy}'. Choose one of: {', '.join(policies)}.")
    if min_votes is None:
        return
    if policy != "majority":
        raise ConfigError(
            f"min_votes={min_votes} says nothing about the label policy '{policy}'. "
            f"Leave it out, or choose 'majority'."
        )
    if not 1 <= min_votes <= n_raters:
        raise ConfigError(f"min_votes={min_votes} is outside 1–{n_raters}, the number of raters.")


def decide(
    situation: str | None, votes: Sequence[Vote], *, policy: str, min_votes: int | None
) -> Decision:
    """Choose one label.

    Parameters
    ----------
    situation : str or None
        The scripted emotion.
    votes : Sequence[Vote]
        Fewer than there are raters where some left their cell blank.
    policy : {"situation", "majority", "soft"}
        ``situation``: the scripted emotion. ``majority``: the plurality of the votes; a
        tie for first place is left out. ``soft``: the same, but a tie goes to the
        scripted emotion if that is among the tied, else to the first in label order.
    min_votes : int or None
        With ``majority``, how many raters must have chosen the label.

    Returns
    -------
    Decision
        A label, or the reason for none.

    Examples
    --------
    >>> votes = [Vote("angry", 1), Vote("angry", 2), Vote("fear", 1), Vote("fear", 1)]
    >>> decide("fear", votes, policy="soft", min_votes=None).label
    'fear'
    >>> decide("fear", votes, policy="majority", min_votes=None).reason
    'tie for first place'
    """
    if policy == "situation":
        return Decision(situation) if situation else Decision(None, "no scripted emotion")
    if not votes:
        return Decision(None, "no votes")
    counts = Counter(vote.label for vote in votes)
    most = max(counts.values())
    first = ordered_labels(label for label, count in counts.items() if count == most)
    if policy == "soft":
        return Decision(situation if situation in first else first[0])
    if len(first) > 1:
        return Decision(None, "tie for first place", f"{most} votes each: {', '.join(first)}")
    if min_votes is not None and most < min_votes:
        reason = f"fewer than {min_votes} votes for one label"
        return Decision(None, reason, f"{first[0]}: {most} of {len(votes)}")
    return Decision(first[0])


def vote_shares(votes: Sequence[Vote], labels: Sequence[str]) -> list[float]:
    """Share of the votes that each of `labels` got.

    Parameters
    ----------
    votes : Sequence[Vote]
        At least one, each for one of `labels`.
    labels : Sequence[str]
        All classes, in order.

    Returns
    -------
    list[float]
        One share per label, adding up to 1.

    Examples
    --------
    >>> vote_shares([Vote("fear", 1), Vote("angry", 2)], ["angry", "fear", "sadness"])
    [0.5, 0.5, 0.0]
    """
    counts = Counter(vote.label for vote in votes)
    return [counts[label] / len(votes) for label in labels]
