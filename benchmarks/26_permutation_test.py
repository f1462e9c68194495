"""The permutation test between two systems: false alarms and power, in simulation.

Two systems answer the same utterances of the same speakers. Under the null hypothesis
they are equally good for the population and differ from speaker to speaker: swapping them is then a
coin for every speaker. McNemar's test, which takes utterances for independent, is beside it.
"""

from __future__ import annotations

import numpy as np

from koser.evaluation.comparison import compare_systems
from koser.evaluation.pairing import Answers
from measuring import new_parser, print_heading, print_table, print_verdict

LABELS = ("angry", "happiness", "neutral", "sadness")
SHARES = np.array([0.15, 0.1, 0.45, 0.3])
MEAN_SIZE = 30  # utterances of a speaker
N_SPEAKERS = (8, 12, 24, 60)  # up to 16 all swaps are tried
GAINS = (0.0, 0.3, 0.6)  # of the second system, on the logit of every recall
ALPHA = 0.05
SCORES = ("uar", "accuracy", "macro_f1")


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--replications", type=int, default=1000, help="without a difference")
    parser.add_argument("--power", type=int, default=300, help="replications with a difference")
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    n_replications = 40 if arguments.quick else arguments.replications
    n_power = 20 if arguments.quick else arguments.power
    error = 100 * np.sqrt(ALPHA * (1 - ALPHA) / n_replications)
    print(
        f"{n_replications} replications: a rate of 5 % has a standard error of {error:.1f} points"
    )
    rows: list[tuple[str, ...]] = [("% of p <= .05", "gain in UAR", *SCORES, "McNemar")]
    false_alarms, of_mcnemar = [], []
    for n_speakers in N_SPEAKERS:
        for gain in GAINS:
            p_values, gained = simulate(n_speakers, gain, n_power if gain else n_replications)
            rates = (p_values <= ALPHA).mean(axis=0)
            rows.append(
                (
                    f"{n_speakers} speakers, {'no difference' if not gain else 'better'}",
                    f"{gained:+.3f}",
                    *(f"{100 * rate:.1f}" for rate in rates),
                )
            )
            if not gain:
                false_alarms += rates[:-1].tolist()
                of_mcnemar.append(rates[-1])
    print_table(rows)
    low, high = 100 * min(false_alarms), 100 * max(false_alarms)
    print_verdict(
        f"false alarms {low:.1f} to {high:.1f} % (McNemar: up to {100 * max(of_mcnemar):.1f} %)",
        "3 to 7 %",
        is_met=low >= 3 and high <= 7,
    )


def simulate(n_speakers: int, gain: float, n_replications: int) -> tuple[np.ndarray, float]:
    """p-values [n_replications, 4] of `SCORES` and McNemar; the mean difference of UARs."""
    p_values, gained = [], []
    for seed in range(n_replications):
        first, second = draw(np.random.default_rng([n_speakers, seed]), n_speakers, gain)
        found = compare_systems(second, first, labels=LABELS, n_permutations=999, seed=seed)
        assert found.mcnemar is not None  # one answer each
        p_values.append([*(found.p_values[name] for name in SCORES), found.mcnemar.p_exact])
        gained.append(found.differences["uar"].value)
    return np.array(p_values, dtype=float), float(np.mean(gained))


def draw(rng: np.random.Generator, n_speakers: int, gain: float) -> tuple[Answers, Answers]:
    sizes = np.maximum(6, np.rint(MEAN_SIZE * np.exp(0.7 * rng.normal(size=n_speakers) - 0.25)))
    speakers = np.repeat(np.arange(n_speakers), sizes.astype(int))
    true_ids = rng.choice(4, size=len(speakers), p=SHARES)
    ease = 0.5 + rng.normal(size=(n_speakers, 1)) * 0.7
    sides = []
    ids = np.arange(len(speakers)).astype(str)
    for name, plus in (("first", 0.0), ("second", gain)):
        # What a system makes of a speaker is its own.
        logits = ease + plus + 0.6 * rng.normal(size=(n_speakers, 1))
        logits = logits + 0.3 * rng.normal(size=(n_speakers, 4))
        is_right = rng.random(len(speakers)) < 1 / (1 + np.exp(-logits[speakers, true_ids]))
        wrong = (true_ids + rng.integers(1, 4, len(speakers))) % 4
        names = np.array(LABELS)
        y_pred = names[np.where(is_right, true_ids, wrong)]
        sides.append(Answers(name, ids, names[true_ids], y_pred, speakers))
    return sides[0], sides[1]


if __name__ == "__main__":
    main()
