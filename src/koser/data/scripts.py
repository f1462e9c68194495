"""Script clusters: utterances that say (almost) the same sentence.

Actors read scripts, and a script is often tied to one emotion. A system that met the
sentence in training can recognise it instead of the emotion, so a protocol that keeps
scripts apart needs to know which texts are one script: equal but for spacing and
punctuation, an ending (``무시했어``, ``무시했어요``), a particle or two, a filler, one
word of a longer sentence. Two texts are linked where the Jaccard similarity of their
jamo 4-grams reaches a threshold; a cluster is a connected component of the links.

Jamo rather than syllables, because Korean inflects inside the syllable: ``서운해`` and
``서운했어`` share no syllable after ``운``, but most of their jamo.

The threshold of 0.5 means that two sentences of one length share two thirds of what
they say. On 21 invented pairs of one script (spacing, punctuation, ending, particle,
honorific, filler, word order, one word swapped) it joins all; on 16 pairs of different
sentences on one template it joins the five that differ in little more than a word
(``정말 기분이 좋아``, ``정말 기분이 나빠``). 0.6 would join 19 and none. The lower one is the
default: a wrong link costs a few utterances, a missed one leaks a script.

What it cannot do: a paraphrase in other words (similarity 0.1 to 0.2) is not found,
and chains join: where A is like B and B like C, all three are one cluster, however
unlike A and C are. `largest_cluster` tells whether that has swallowed a corpus.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from koser.errors import ConfigError

THRESHOLD = 0.5
SHINGLE_LENGTH = 4  # jamo

IntArray = npt.NDArray[np.int64]

# Candidate pairs generated, and of those verified, together: bounds on the memory.
_CANDIDATES_AT_ONCE = 500_000
_VERIFIED_AT_ONCE = 20_000
# Bits of the set sketch that refutes most candidates; a multiple of 64.
_SKETCH_BITS = 256


def normalise_script(text: str) -> str:
    """`text` reduced to what is spoken: NFC, casefolded, letters and digits only.

    Examples
    --------
    >>> normalise_script(" 정말?  Kids, 3백만 원… ")
    '정말kids3백만원'
    """
    composed = unicodedata.normalize("NFC", text.casefold())
    return "".join(character for character in composed if character.isalnum())


def has_script(text: str | None) -> bool:
    """Whether `text` says anything by which its script could be known."""
    return bool(text and normalise_script(text))


def shingles(text: str) -> set[str]:
    """Distinct jamo 4-grams of `text`; a shorter text is one shingle, a blank one has none.

    Examples
    --------
    >>> len(shingles("했어")), len(shingles("아")), len(shingles("…"))
    (2, 1, 0)
    """
    jamo = unicodedata.normalize("NFD", normalise_script(text))
    last = len(jamo) - SHINGLE_LENGTH
    if last < 0:
        return {jamo} if jamo else set()
    return {jamo[at : at + SHINGLE_LENGTH] for at in range(last + 1)}


def cluster_scripts(texts: Sequence[str | None], *, threshold: float = THRESHOLD) -> IntArray:
    """Number the script of every text.

    The clusters are exactly the connected components of all pairs at or above
    `threshold`, found without comparing all pairs: similar sets must share one of
    their rarest shingles (prefix filtering [1]_), and of the pairs that do, a bit
    sketch refutes most. Time grows with the number of such pairs: seconds for 44,000
    distinct sentences, also where all share a template. Random strings over an
    alphabet of four letters, which no corpus holds, take half a minute; memory is
    bounded in any case.

    Parameters
    ----------
    texts : Sequence[str or None]
        One text per utterance; None or a text without a letter or digit is unknown.
    threshold : float
        Jaccard similarity in (0, 1] from which two texts are one script.

    Returns
    -------
    np.ndarray [shape=(n_texts,)]
        Cluster of each text, numbered from 0 in order of first appearance. Every
        unknown text is a cluster of its own.

    Raises
    ------
    ConfigError
        If `threshold` is not in (0, 1].

    References
    ----------
    .. [1] Bayardo, Ma & Srikant, "Scaling up all pairs similarity search", WWW 2007;
       the shorter prefix of the smaller set: Xiao et al., "Efficient similarity joins
       for near-duplicate detection", WWW 2008.

    Examples
    --------
    >>> cluster_scripts(["너무 무서워.", "너무 무서워요!", None, "정말 기뻐", None]).tolist()
    [0, 0, 1, 2, 3]
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold = {threshold} is not in (0, 1].")
    number: dict[str, int] = {}  # shingle -> id
    known: dict[bytes, int] = {}  # distinct shingle set -> its place
    place_of_text: dict[str, int | None] = {}
    cluster = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        spoken = text or ""
        if spoken not in place_of_text:
            ids = sorted(number.setdefault(found, len(number)) for found in shingles(spoken))
            key = np.array(ids, dtype=np.int32).tobytes()
            place_of_text[spoken] = known.setdefault(key, len(known)) if key else None
        place = place_of_text[spoken]
        cluster[row] = -1 - row if place is None else place
    if known:
        root = _components(_ShingleSets.pack([*known]), threshold)
        is_known = cluster >= 0
        cluster[is_known] = root[cluster[is_known]]
    return _in_order_of_appearance(cluster)


def largest_cluster(clusters: IntArray) -> int:
    """How many utterances the largest of `clusters` holds (0 where there is none)."""
    return int(np.bincount(clusters).max()) if len(clusters) else 0


def _in_order_of_appearance(values: IntArray) -> IntArray:
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


@dataclass(frozen=True)
class _ShingleSets:
    """Sets of shingles, one after the other, each with its rarest shingle first.

    Attributes
    ----------
    tokens, owner : np.ndarray [shape=(n_tokens,)]
        Shingle as its rank in how few sets hold it, and the set it belongs to.
    sizes, starts : np.ndarray [shape=(n_sets,)]
        Number of shingles, and where in `tokens` they start.
    """

    tokens: IntArray
    owner: IntArray
    sizes: IntArray
    starts: IntArray

    @classmethod
    def pack(cls, keys: Sequence[bytes]) -> _ShingleSets:
        raw = np.frombuffer(b"".join(keys), dtype=np.int32).astype(np.int64)
        sizes = np.array([len(key) // 4 for key in keys], dtype=np.int64)
        owner = np.repeat(np.arange(len(keys)), sizes)
        n_holders = np.bincount(raw)
        rank = np.empty(len(n_holders), dtype=np.int64)
        rank[np.argsort(n_holders, kind="stable")] = np.arange(len(n_holders))
        tokens = rank[raw]
        tokens = tokens[np.lexsort((tokens, owner))]
        return cls(tokens, owner, sizes, np.cumsum(sizes) - sizes)

    def keys(self, owner: IntArray, tokens: IntArray) -> IntArray:
        """One number per (set, shingle), ascending in the order they are stored."""
        n_tokens = int(self.tokens.max()) + 1
        return np.asarray(owner * n_tokens + tokens)

    def sketches(self) -> npt.NDArray[np.uint64]:
        """One bit per shingle, modulo the sketch's width [shape=(n_sets, n_words)]."""
        words = np.zeros((len(self.sizes), _SKETCH_BITS // 64), dtype=np.uint64)
        word, bit = np.divmod(self.tokens % _SKETCH_BITS, 64)
        np.bitwise_or.at(words, (self.owner, word), np.uint64(1) << bit.astype(np.uint64))
        return words


def _components(sets: _ShingleSets, threshold: float) -> IntArray:
    """Root of every set in the graph of the pairs at or above `threshold`."""
    root = np.arange(len(sets.sizes))
    sketches = sets.sketches()
    keys = sets.keys(sets.owner, sets.tokens)
    for a, b in _candidates(sets, threshold, root):
        total = sets.sizes[a] + sets.sizes[b]
        needed = _overlap_needed(total, threshold)
        # Each differing bit stands for at least one shingle that only one set has.
        n_differing = np.bitwise_count(sketches[a] ^ sketches[b]).sum(axis=1, dtype=np.int64)
        possible = np.flatnonzero(total - n_differing >= 2 * needed)
        for at in range(0, len(possible), _VERIFIED_AT_ONCE):
            pairs = possible[at : at + _VERIFIED_AT_ONCE]
            pairs = pairs[root[a[pairs]] != root[b[pairs]]]
            is_link = _overlap(sets, keys, a[pairs], b[pairs]) >= needed[pairs]
            _join(root, a[pairs[is_link]], b[pairs[is_link]])
    return root


def _overlap_needed(total: IntArray, threshold: float) -> IntArray:
    """Smallest overlap with which two sets of `total` shingles together reach `threshold`."""
    # overlap / (total − overlap) >= t; 1e-9 undoes the rounding of exact ratios.
    needed: IntArray = np.ceil(threshold / (1 + threshold) * total - 1e-9).astype(np.int64)
    return needed


def _candidates(
    sets: _ShingleSets, threshold: float, root: IntArray
) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs that share a rare shingle and are not in one component of `root` yet.

    `root` is read anew for every batch: what was joined in between is not compared.
    """
    size = sets.sizes[sets.owner]
    position = np.arange(len(size)) - sets.starts[sets.owner]
    # A set overlaps with whatever it is similar to in at least t·size shingles, so the
    # two share one of the size − ⌈t·size⌉ + 1 rarest; fewer will do for the smaller.
    rows = np.flatnonzero(position <= size - np.ceil(threshold * size - 1e-9))
    rows = rows[np.lexsort((size[rows], sets.tokens[rows]))]
    token, member, size, position = sets.tokens[rows], sets.owner[rows], size[rows], position[rows]
    # The larger ones of a row's partners follow it in its shingle's list, up to size / t.
    stride = int(size.max()) + 1
    largest = np.minimum(np.floor(size / threshold + 1e-9).astype(np.int64), stride - 1)
    end = np.searchsorted(token * stride + size, token * stride + largest, side="right")
    end[position > size - _overlap_needed(2 * size, threshold)] = 0
    at = 0
    while at < len(rows):
        start = at + _run_ends(root[member[at:]])  # neighbours in one component: go behind them
        n_partners = np.maximum(end[at:] - start, 0)
        n_rows = int(np.searchsorted(np.cumsum(n_partners), _CANDIDATES_AT_ONCE)) + 1
        n_partners, start = n_partners[:n_rows], start[:n_rows]
        a = member[at + np.repeat(np.arange(len(n_partners)), n_partners)]
        b = member[np.repeat(start, n_partners) + _offsets(n_partners)]
        is_open = root[a] != root[b]
        yield a[is_open], b[is_open]
        at += n_rows


def _run_ends(values: IntArray) -> IntArray:
    """For every place the place behind the run of equal `values` that it is in."""
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, len(values))
    return np.repeat(ends, np.diff(ends, prepend=0))


def _offsets(counts: IntArray) -> IntArray:
    """0, 1, … count − 1 for every count, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _overlap(sets: _ShingleSets, keys: IntArray, a: IntArray, b: IntArray) -> IntArray:
    """Number of shingles that the sets `a[i]` and `b[i]` share."""
    sizes = sets.sizes[a]
    tokens = sets.tokens[np.repeat(sets.starts[a], sizes) + _offsets(sizes)]
    pair = np.repeat(np.arange(len(a)), sizes)
    wanted = sets.keys(b[pair], tokens)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.bincount(pair[keys[at] == wanted], minlength=len(a))


def _join(root: IntArray, a: IntArray, b: IntArray) -> None:
    """Unite the components of all pairs, in place; every root stays its own root."""
    while len(a):
        a, b = root[a], root[b]
        is_apart = a != b
        a, b = a[is_apart], b[is_apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root != root[root]).any():
            root[:] = root[root]
