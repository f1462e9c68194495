"""Speaker enrolment: which utterances of a person are heard ahead of those that are scored.

A recogniser that hears a caller's first utterances may adapt to the voice before it answers. How
well it does then is a protocol of its own, ``speaker+script enrolled(3)``: three utterances of each
tested person, without their labels. For scores at several numbers to be of the same utterances,
`pool` utterances of every person are held out of all scores, and the first `k` of them are heard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from koser.config import Config
from koser.data.assignment import LEFT_OUT, PARTS, TEST, TRAIN, VAL, BoolArray, IntArray, codes
from koser.data.manifest import Manifest
from koser.data.splits import SCHEMA, Split
from koser.errors import SplitError

_MARK = " enrolled("


class EnrolmentOptions(Config):
    """How a person is enrolled, in training and in tests."""

    # Utterances of a person that adapt what is made of the others; in training any number up to
    # it. None: there is no enrolment, and nothing is held out for one.
    k: int | None = Field(None, ge=0)
    # Utterances of each person that are held out of the scores, whatever k; the first k are heard.
    pool: int = Field(10, ge=1)
    seed: int = Field(42, ge=0, lt=2**32)  # of which ones they are

    @model_validator(mode="after")
    def _have_enough(self) -> EnrolmentOptions:
        if self.k is not None and self.k > self.pool:
            raise ValueError(
                f"k = {self.k} utterances cannot be heard of a pool of {self.pool}; "
                f"give enrolment.pool={self.k} too, or a lower k"
            )
        return self


@dataclass(frozen=True, eq=False)
class Enrolment:
    """Who speaks each utterance, and which utterances of each speaker are drawn.

    Attributes
    ----------
    speakers : np.ndarray [shape=(n_utterances,), dtype=int64]
        Of the rows of the manifest, as numbers from 0.
    drawn : np.ndarray [shape=(n_speakers, pool), dtype=int64]
        Rows of each speaker in the order in which they are drawn; -1 where there are no more.
    """

    speakers: IntArray
    drawn: IntArray

    @classmethod
    def draw(cls, manifest: Manifest, options: EnrolmentOptions) -> Enrolment:
        """Draw utterances of every speaker; labels are not looked at.

        An utterance's place follows from the seed and its id alone: not from the order of the
        rows, nor from what else there is of the speaker.

        Raises
        ------
        SplitError
            If the manifest does not know every utterance's speaker.
        """
        _refuse_unknown_speakers(manifest)
        speakers = codes(manifest.table["speaker"])
        ranks = [_rank(options.seed, name) for name in manifest.table["id"]]
        order = np.array(sorted(range(len(ranks)), key=ranks.__getitem__), np.int64)
        drawn = np.full((int(speakers.max()) + 1, options.pool), -1)
        for of_speaker, rows in zip(drawn, rows_by_speaker(speakers, order), strict=True):
            n = min(len(rows), options.pool)
            of_speaker[:n] = rows[:n]
        return cls(speakers, drawn)

    @property
    def is_drawn(self) -> BoolArray:
        """Whether each utterance is drawn [shape=(n_utterances,)]."""
        mask = np.zeros(len(self.speakers), bool)
        mask[self.drawn[self.drawn >= 0]] = True
        return mask

    def heard(self, speaker: int, k: int) -> IntArray:
        """The first `k` rows that are drawn of a speaker; fewer where there are no more."""
        rows: IntArray = self.drawn[speaker, :k]
        return rows[rows >= 0]


def rows_by_speaker(speakers: IntArray, rows: IntArray) -> list[IntArray]:
    """`rows` of each speaker, in the order they are given.

    Parameters
    ----------
    speakers : np.ndarray [shape=(n_utterances,)]
        Of all rows, as numbers from 0.
    rows : np.ndarray
        Some of them.
    """
    of_rows = speakers[rows]
    ends = np.cumsum(np.bincount(of_rows, minlength=int(speakers.max()) + 1))
    return np.split(rows[np.argsort(of_rows, kind="stable")], ends[:-1])


def enrolled_protocol(protocol: str, k: int) -> str:
    """What a protocol is called where `k` utterances of each tested person are heard ahead.

    Examples
    --------
    >>> enrolled_protocol("speaker+script", 3)
    'speaker+script enrolled(3)'
    """
    return f"{protocol}{_MARK}{k})"


def is_enrolled(protocol: str) -> bool:
    """Whether a protocol's name is one of `enrolled_protocol`."""
    return _MARK in protocol


def hold_out_enrolment(split: Split, manifest: Manifest, options: EnrolmentOptions) -> Split:
    """A split whose val and test parts lack what may be heard of their speakers.

    Parameters
    ----------
    split : Split
        Of `manifest`; no fold tests a speaker that it trains on.
    manifest : Manifest
        The utterances.
    options : EnrolmentOptions
        With `k`.

    Returns
    -------
    Split
        Of the same folds, but for those that have nothing left to test. What is scored does not
        depend on `k`; the protocol's name, and so the hash, does.

    Raises
    ------
    SplitError
        If speakers are unknown or too short of utterances, one is trained on and tested, or a
        val part would be empty.
    """
    if options.k is None:
        raise ValueError("a split is only changed for an enrolment")
    if is_enrolled(split.protocol):
        raise SplitError(
            f"The split '{split.protocol}' is one of an enrolment already. Give the split that it "
            f"was made from."
        )
    parts = split.parts(manifest)
    enrolment = Enrolment.draw(manifest, options)
    _refuse_trained_speakers(parts, enrolment, manifest)
    _refuse_few_utterances(parts, enrolment, manifest, options)
    left = _without_pool(parts, enrolment, options.pool)
    if _lacks_val(parts, left):
        # A smaller pool leaves more to test too, so that only trying tells which one will do.
        pools = range(options.pool - 1, 0, -1)
        tried = (n for n in pools if not _lacks_val(parts, _without_pool(parts, enrolment, n)))
        most = next(tried, 0)
        raise SplitError(
            f"Without {options.pool} utterances of each person, a fold's val part is empty. Give "
            f"{f'{_smaller(most, options)}, ' if most else ''}a larger --val-fraction, or 0 for no "
            f"val part."
        )
    is_tested = (left == TEST).any(axis=1)
    return replace(
        split,
        table=_table(left[is_tested], manifest.table["id"]),
        protocol=enrolled_protocol(split.protocol, options.k),
        notes=(*split.notes, *_notes(options, is_tested)),
    )


def _without_pool(parts: IntArray, enrolment: Enrolment, pool: int) -> IntArray:
    """`parts`, where nothing is scored of the first `pool` utterances drawn of a person."""
    is_drawn = replace(enrolment, drawn=enrolment.drawn[:, :pool]).is_drawn
    return np.where(((parts == TEST) | (parts == VAL)) & is_drawn, LEFT_OUT, parts)


def _lacks_val(parts: IntArray, left: IntArray) -> bool:
    """Whether a fold that had a val part has none left, and is tested."""
    has_lost = (parts == VAL).any(axis=1) & ~(left == VAL).any(axis=1)
    return bool((has_lost & (left == TEST).any(axis=1)).any())


def _smaller(pool: int, options: EnrolmentOptions) -> str:
    """How a pool of no more than `pool` is asked for: `k` can be no larger."""
    heard = f"--enrol {pool} " if options.k is not None and options.k > pool else ""
    return f"{heard}--set enrolment.pool={pool}"


def _rank(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()


def _table(parts: IntArray, ids: pl.Series) -> pl.DataFrame:
    n_folds, n_utterances = parts.shape
    return pl.DataFrame(
        {
            "id": pl.concat([ids] * n_folds),
            "fold": np.repeat(np.arange(n_folds), n_utterances),
            "part": pl.Series(PARTS).gather(parts.ravel()),
        },
        schema=SCHEMA,
    )


def _notes(options: EnrolmentOptions, is_tested: BoolArray) -> Sequence[str]:
    heard = (
        f"the first {options.k} of them are heard, without labels, and adapt the features"
        if options.k
        else "none of them is heard"
    )
    notes = [
        f"Of each tested person {options.pool} utterances, drawn with seed {options.seed}, are "
        f"never scored; {heard}."
    ]
    if not is_tested.all():
        notes.append(
            f"{(~is_tested).sum()} of {len(is_tested)} folds test nothing else, and are left out."
        )
    return notes


def _refuse_unknown_speakers(manifest: Manifest) -> None:
    grouping = manifest.provenance.grouping
    if grouping == "speaker":
        return
    known = f"only {grouping}, which several persons share" if grouping else "nobody"
    raise SplitError(
        f"Enrolment needs to know who speaks each utterance, and of these {len(manifest)} it is "
        f"known: {known}. Prepare a manifest with speakers, or train without enrolment."
    )


def _refuse_trained_speakers(parts: IntArray, enrolment: Enrolment, manifest: Manifest) -> None:
    for fold, part in enumerate(parts):
        tested = enrolment.speakers[(part == TEST) | (part == VAL)]
        both = np.intersect1d(tested, enrolment.speakers[part == TRAIN])
        if len(both):
            names = manifest.table["speaker"].unique().sort().gather(both[:3].tolist())
            raise SplitError(
                f"{len(both)} speakers are both trained on and tested in fold {fold}, such as "
                f"{', '.join(names)}: enrolment is for persons that training has not heard. "
                f"Split by speaker, or train without enrolment."
            )


def _refuse_few_utterances(
    parts: IntArray, enrolment: Enrolment, manifest: Manifest, options: EnrolmentOptions
) -> None:
    n_utterances = np.bincount(enrolment.speakers)
    tested = np.unique(enrolment.speakers[(parts == TEST).any(axis=0)])
    short = tested[n_utterances[tested] <= options.pool]
    if len(short):
        short = short[np.argsort(n_utterances[short], kind="stable")]
        names = manifest.table["speaker"].unique().sort().gather(short[:3].tolist())
        fewest = int(n_utterances[short[0]])
        smaller = f"hold out fewer ({_smaller(fewest - 1, options)}), or " if fewest > 1 else ""
        way = f"{smaller}leave such speakers out of the manifest."
        raise SplitError(
            f"{len(short)} of {len(tested)} tested speakers have no more than the "
            f"{options.pool} utterances that are held out for enrolment, such as "
            f"{', '.join(names)}: nothing of them would be scored. The smallest has {fewest}: "
            f"{way}"
        )
