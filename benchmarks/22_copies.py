"""Copies that the acoustic fingerprint finds, on real speech: emotiontts_open_db and RAVDESS.

Clips are re-encoded, made quieter, cut and all of these; each copy is looked for among all
clips of both corpora. Both corpora by themselves show the other error: how many pairs of
recordings that are no copies are called one. RAVDESS has every sentence by every actor with
every emotion twice, and one pair of equal files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from inputs import REPOSITORY, add_corpus_option, real_corpus
from koser.audio.fingerprint import find_copies, fingerprint
from koser.audio.reading import load
from measuring import new_parser, print_heading, print_table, print_verdict

sys.path.insert(0, str(REPOSITORY / "tests"))  # the tests' ways to copy

RATE = 16_000
TARGET_FOUND, TARGET_HARDEST = 0.99, 0.90
HARDEST = "opus of a cut, quieter one"
KNOWN_PAIRS = 1


def main() -> None:
    parser = new_parser(__doc__)
    for corpus in ("emotiontts", "ravdess"):
        add_corpus_option(parser, corpus)
    arguments = parser.parse_args()
    print_heading(__doc__, is_quick=arguments.quick)
    paths = []
    for corpus, suffix in (("emotiontts", "wav"), ("ravdess", "flac")):
        paths += sorted(real_corpus(arguments, corpus).rglob(f"*.{suffix}"))
    paths = paths[::20] if arguments.quick else paths
    waveforms = {path: load(path, sampling_rate=RATE) for path in paths}
    prints = [fingerprint(waveform, RATE) for waveform in waveforms.values()]
    own = find_copies(prints)
    chosen = list(range(0, len(paths), 10))
    rows, shares = [("copies", "found", "of", "bits that differ")], {}
    for name, copy in kinds().items():
        copies = [fingerprint(*copy(waveforms[paths[place]])) for place in chosen]
        found = {
            link.first: link.bit_error_rate
            for link in find_copies([*prints, *copies])
            if link.second - len(paths) >= 0 and link.first == chosen[link.second - len(paths)]
        }
        shares[name] = len(found) / len(chosen)
        worst = f"{max(found.values()):.3f} at most" if found else "-"
        rows.append((name, str(len(found)), str(len(chosen)), worst))
    print_table(rows)
    usual = min(share for name, share in shares.items() if name != HARDEST)
    print_verdict(
        f"found of each kind: {usual:.1%} at least", ">= 99 %", is_met=usual >= TARGET_FOUND
    )
    print_verdict(f"found of the hardest: {shares[HARDEST]:.1%}", ">= 90 %",
                  is_met=shares[HARDEST] >= TARGET_HARDEST)  # fmt: skip
    n_pairs = len(prints) * (len(prints) - 1) // 2
    print_verdict(
        f"called copies among {n_pairs:,} pairs of the corpora themselves: {len(own)}",
        f"{KNOWN_PAIRS}, the equal files",
        is_met=len(own) == KNOWN_PAIRS or arguments.quick,
    )


def kinds() -> dict[str, Callable[[np.ndarray], tuple[np.ndarray, int]]]:
    """What is done to a copy: waveform at 16 kHz -> waveform and its rate, by name."""
    from fixtures.speech import COPIES, encoded

    def hardest(waveform: np.ndarray) -> tuple[np.ndarray, int]:
        return encoded(0.3 * waveform[2_345:-3_210], "OGG", "OPUS")

    return {**COPIES, HARDEST: hardest}


if __name__ == "__main__":
    main()
