"""What speaks for a result and against it, in one list: the first thing to read beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from koser.evaluation.noting import MIN_CLUSTERS
from koser.reporting.language import Phrases

Status = Literal["pass", "warn", "fail", "unknown"]
# From here on a spread over seeds says something.
_MIN_SEEDS = 3


@dataclass(frozen=True)
class Check:
    """One reason to believe a result, or not.

    Attributes
    ----------
    status : {'pass', 'warn', 'fail', 'unknown'}
        How it turned out.
    text : str
        What was looked at, with its values.
    """

    status: Status
    text: str


def checks(metrics: Mapping[str, Any], t: Phrases) -> list[Check]:
    """Everything a run's own numbers say about how far they can be believed.

    Parameters
    ----------
    metrics : Mapping
        The content of ``metrics.json``.
    t : Phrases
        The language.
    """
    return [
        *_above_chance(metrics, t),
        *_above_baselines(metrics, t),
        *_apart(metrics, t),
        *_evidence(metrics, t),
    ]


def canary_checks(canaries: Mapping[str, Any], t: Phrases) -> list[Check]:
    """What the canaries told, one line each.

    Parameters
    ----------
    canaries : Mapping
        The content of ``canaries.json``.
    t : Phrases
        The language.
    """
    found = []
    for canary in canaries["canaries"]:
        status: Status = "unknown" if canary["verdict"] == "not_run" else canary["verdict"]
        ((summary, _),) = t.notes([canary["summary"]])
        found.append(Check(status, f"{t['canaries'][canary['name']]}: {summary}"))
    return found


def _above_chance(metrics: Mapping[str, Any], t: Phrases) -> Iterator[Check]:
    bounds, chance = metrics["ci95"]["uar"], metrics["chance_uar"]
    if bounds is None:
        yield Check("unknown", t["trust.no_interval"])
        return
    status: Status = "pass" if bounds[0] > chance else "fail"
    values = {"low": f"{bounds[0]:.3f}", "high": f"{bounds[1]:.3f}", "chance": f"{chance:.3f}"}
    yield Check(status, t[f"trust.chance_{status}"].format(**values))


def _above_baselines(metrics: Mapping[str, Any], t: Phrases) -> Iterator[Check]:
    """Whether the system beats what metadata or text alone reach under the same split."""
    bounds = metrics["ci95"]["uar"]
    for probe in metrics.get("probes", ()):
        if probe["uar"] is None or bounds is None:
            continue
        status: Status = "pass" if bounds[0] > probe["uar"] else "warn"
        values = {
            "low": f"{bounds[0]:.3f}",
            "high": f"{bounds[1]:.3f}",
            "uar": f"{probe['uar']:.3f}",
        }
        name = t["audit.probes"][probe["name"]]
        yield Check(status, t[f"trust.baseline_{status}"].format(name=name, **values))


def _apart(metrics: Mapping[str, Any], t: Phrases) -> Iterator[Check]:
    leaks = {leak["kind"]: leak for leak in metrics.get("leaks", ())}
    # Who stands for a speaker: the groups, where nobody knows the speakers.
    who = "group" if (metrics["cluster_kind"] or "speaker") != "speaker" else "speaker"
    learnt = leaks.get("utterance", {"n_shared": 0})["n_shared"]
    if learnt:
        yield Check("fail", t["trust.utterance_fail"].format(n=f"{learnt:,}"))
    for kind in (who, "session", "script"):
        leak = leaks.get(kind)
        if leak is None or (leak["n_shared"] is None and kind == "session"):
            continue
        if leak["n_shared"] is None:
            yield Check("unknown", t[f"trust.{kind}_unknown"])
            continue
        status: Status = "warn" if leak["n_shared"] else "pass"
        values = {"n": f"{leak['n_shared']:,}", "tested": f"{leak['n_utterances']:,}"}
        stands_in = t.named("clusters", metrics["cluster_kind"] or "speaker")
        text = t[f"trust.{kind}_{status}"].format(kind=stands_in, **values)
        yield Check(status, text)


def _evidence(metrics: Mapping[str, Any], t: Phrases) -> Iterator[Check]:
    n_clusters, n_seeds = metrics["n_speakers"], len(metrics["seeds"])
    if n_clusters is not None:
        status: Status = "pass" if n_clusters >= MIN_CLUSTERS else "warn"
        yield Check(status, t[f"trust.clusters_{status}"].format(n=n_clusters))
    status = "pass" if n_seeds >= _MIN_SEEDS else "warn"
    yield Check(status, t[f"trust.seeds_{status}"].format(n=n_seeds))
    absent = metrics["labels_absent"]
    if absent:
        names = ", ".join(t.label(label) for label in absent)
        yield Check("warn", t["trust.absent"].format(labels=names))
