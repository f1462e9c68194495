"""Coverage of 95 % intervals in simulation: how often they hold the true score.

Speakers differ in how well they are understood, in each label apart, in what they say
and in how much. The truth is the score of 400,000 of them. Beside the intervals of koser:
percentiles of a bootstrap that draws speakers, and of one that draws utterances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from koser.evaluation.bootstrap import bootstrap_intervals
from koser.evaluation.intervals import balanced_weights, cluster_intervals
from koser.evaluation.metrics import (
    accuracy_from_confusion,
    f1_from_confusion,
    recalls_from_confusion,
)
from measuring import new_parser, print_heading, print_table, print_verdict

N_CLASSES = 4
SHARES = np.array([0.45, 0.3, 0.15, 0.1])  # of the labels, on average
EASE = np.array([1.2, 0.6, 0.3, 0.0])  # logit of their recall
MEAN_SIZE = 40  # utterances of a speaker
SCORES = ("accuracy", "UAR", "macro-F1", "recall of the rarest label", "NLL", "UAR difference")
MAIN = ("accuracy", "UAR", "macro-F1", "UAR difference")
# Standard deviation of the logarithm of speakers' sizes: with 1, one of the largest tenth
# has at least 13 times as many utterances as one of the smallest.
SPREADS = {"equal": 0.0, "unequal": 0.5, "very unequal": 1.0}
N_SPEAKERS = (2, 3, 4, 5, 8, 15, 24, 60)
FEWEST = 5  # from here on the target is to be reached
WAYS = ("koser", "bootstrap of speakers", "bootstrap of utterances")


@dataclass(frozen=True)
class Speakers:
    """Sums per speaker: confusion counts of two systems, and losses of the first."""

    first: np.ndarray  # (n_speakers, N_CLASSES**2)
    second: np.ndarray
    losses: np.ndarray  # (n_speakers,)

    @property
    def sums(self) -> np.ndarray:
        """All of it (n_speakers, 2 * N_CLASSES**2 + 1)."""
        return np.column_stack([self.first, self.second, self.losses])

    @property
    def n_true(self) -> np.ndarray:
        """Utterances of each label (n_speakers, N_CLASSES)."""
        return self.first.reshape(-1, N_CLASSES, N_CLASSES).sum(axis=2)


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--bootstraps", type=int, default=200, help="replications with these too")
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_replications = 60 if arguments.quick else arguments.replications
    n_bootstraps = 20 if arguments.quick else arguments.bootstraps
    print(
        f"{n_replications} replications (standard error {standard_error(n_replications):.1f} "
        f"points), {n_bootstraps} of the bootstraps ({standard_error(n_bootstraps):.1f} points)"
    )
    held: dict[tuple[str, str], list[np.ndarray]] = {}
    for kind, spread in SPREADS.items():
        truth = true_scores(spread, n_speakers=40_000 if arguments.quick else 400_000)
        rows: list[tuple[str, ...]] = [(f"{kind} speakers", *SCORES)]
        for n_speakers in N_SPEAKERS:
            found = coverage(spread, n_speakers, truth, n_replications, n_bootstraps)
            for way in WAYS:
                rows.append((f"{n_speakers:3d} {way}", *map(percent, found[way])))
                if n_speakers >= FEWEST:
                    held.setdefault((kind, way), []).append(found[way])
        print_table(rows)
    mild = ("equal", "unequal")
    print_range(held, mild, MAIN, "accuracy, UAR, macro-F1, UAR difference")
    print_range(held, ("very unequal",), MAIN, "the same, very unequal speakers")
    print_range(held, tuple(SPREADS), ("recall of the rarest label",), "recall of the rarest label")
    print_range(held, tuple(SPREADS), ("NLL",), "NLL")


def print_range(
    held: dict[tuple[str, str], list[np.ndarray]],
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    what: str,
) -> None:
    """The lowest and highest coverage of some scores, and of the bootstraps'."""
    places = [SCORES.index(name) for name in names]
    ends = []
    for way in WAYS:
        shares = 100 * np.concatenate([np.array(held[kind, way])[:, places] for kind in kinds])
        ends.append((float(np.nanmin(shares)), float(np.nanmax(shares))))
    (low, high), speakers, utterances = ends
    print_verdict(
        f"{what}: {low:.1f} to {high:.1f} % (bootstrap of speakers {speakers[0]:.0f} to "
        f"{speakers[1]:.0f}, of utterances {utterances[0]:.0f} to {utterances[1]:.0f})",
        f"93 to 97 %, {FEWEST} to {N_SPEAKERS[-1]} speakers",
        is_met=low >= 93 and high <= 97,
    )


def coverage(
    spread: float, n_speakers: int, truth: np.ndarray, n_replications: int, n_bootstraps: int
) -> dict[str, np.ndarray]:
    """Share of intervals that hold the truth, per way and score."""
    held: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    for seed in range(n_replications):
        rng = np.random.default_rng([n_speakers, seed])
        drawn = draw(rng, n_speakers, spread)
        if (drawn.n_true.sum(axis=0) == 0).any():
            continue
        ways: list[Callable[[], tuple[np.ndarray, np.ndarray]]] = [lambda d=drawn: ours(d)]
        if seed < n_bootstraps:
            ways += [lambda d=drawn: of_speakers(d), lambda d=drawn, r=rng: of_utterances(d, r)]
        for way, interval in zip(WAYS, ways, strict=False):
            low, high = interval()
            held[way].append(np.where(np.isnan(low), np.nan, (low <= truth) & (truth <= high)))
    return {way: mean_of_known(np.array(each)) for way, each in held.items()}


def draw(rng: np.random.Generator, n_speakers: int, spread: float) -> Speakers:
    noise = rng.normal(size=n_speakers) * spread - spread**2 / 2
    sizes = np.maximum(4, np.rint(MEAN_SIZE * np.exp(noise))).astype(int)
    n_true = rng.multinomial(sizes, rng.dirichlet(20 * SHARES, n_speakers))
    ease = EASE + 0.8 * rng.normal(size=(n_speakers, 1))
    systems = []
    for gain in (0.0, 0.3):  # of one speaker the systems are alike, of one label less so
        logits = ease + gain + 0.6 * rng.normal(size=(n_speakers, N_CLASSES))
        systems.append(draw_counts(rng, n_true, 1 / (1 + np.exp(-logits))))
    losses = rng.gamma(sizes, np.exp(0.5 * rng.normal(size=n_speakers)))
    return Speakers(systems[0], systems[1], losses)


def draw_counts(rng: np.random.Generator, n_true: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    counts = np.zeros((*n_true.shape, N_CLASSES))
    right = rng.binomial(n_true, recalls)
    for label in range(N_CLASSES):
        others = [other for other in range(N_CLASSES) if other != label]
        wrong = n_true[:, label] - right[:, label]
        counts[:, label, others] = rng.multinomial(wrong, np.full(N_CLASSES - 1, 1 / 3))
        counts[:, label, label] = right[:, label]
    return counts.reshape(len(n_true), -1)


def scores(sums: np.ndarray) -> np.ndarray:
    """`SCORES` of sums [n, 6]."""
    first, second, losses = np.split(sums, [N_CLASSES**2, 2 * N_CLASSES**2], axis=1)
    of_first, of_second = (e.reshape(-1, N_CLASSES, N_CLASSES) for e in (first, second))
    recalls = recalls_from_confusion(of_first)
    uar = recalls.mean(axis=1)
    return np.column_stack(
        [
            accuracy_from_confusion(of_first),
            uar,
            f1_from_confusion(of_first).mean(axis=1),
            recalls[:, -1],
            losses[:, 0] / first.sum(axis=1),
            recalls_from_confusion(of_second).mean(axis=1) - uar,
        ]
    )


def true_scores(spread: float, *, n_speakers: int) -> np.ndarray:
    parts = [
        draw(np.random.default_rng([0, part]), n_speakers // 8, spread).sums.sum(axis=0)
        for part in range(8)
    ]
    return scores(np.sum(parts, axis=0, keepdims=True))[0]


def ours(drawn: Speakers) -> tuple[np.ndarray, np.ndarray]:
    of_all, balanced = drawn.n_true.sum(axis=1), balanced_weights(drawn.n_true)
    weights = [of_all, balanced, balanced, drawn.n_true[:, -1], of_all, balanced]
    found = cluster_intervals(
        drawn.sums,
        scores,
        weights=np.column_stack(weights),
        scales=["share"] * 4 + ["loss", "difference"],
    )
    return found.low, found.high


def of_speakers(drawn: Speakers) -> tuple[np.ndarray, np.ndarray]:
    found = bootstrap_intervals(drawn.sums, scores, n_resamples=500, seed=0)
    return found.low, found.high


def of_utterances(drawn: Speakers, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As if every utterance were of another speaker; what was drawn of each system is apart."""
    n = int(drawn.n_true.sum())
    sides = [
        rng.multinomial(n, side.sum(axis=0) / n, size=500) for side in (drawn.first, drawn.second)
    ]
    # Of exponential losses a sum has its own variance: n times the square of the mean.
    losses = rng.gamma(n, drawn.losses.sum() / n, size=(500, 1))
    resampled = scores(np.hstack([*sides, losses]))
    low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
    low[-1] = high[-1] = np.nan  # utterances are paired between systems: not simulated
    return low, high


def mean_of_known(shares: np.ndarray) -> np.ndarray:
    """Mean over rows, without NaN; NaN where a column has nothing else."""
    n_known = (~np.isnan(shares)).sum(axis=0)
    return np.where(n_known > 0, np.nansum(shares, axis=0) / np.maximum(n_known, 1), np.nan)


def percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def standard_error(n_replications: int) -> float:
    return 100 * float(np.sqrt(0.95 * 0.05 / n_replications))


if __name__ == "__main__":
    main()
