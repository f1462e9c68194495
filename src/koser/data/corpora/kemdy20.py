r"""KEMDy20 (ETRI): free Korean conversation of pairs, rated by ten listeners.

Source
    https://nanum.etri.re.kr/share/kjnoh2/KEMDy20, after signing ETRI's agreement, which
    forbids passing the data on. Cite: K. J. Noh & H. Jeong, "KEMDy20", with that address.
Size
    80 adults of 19 to 39 in 40 sessions of two, six topics each; one file per segment. Beside
    them lie EDA, IBI and temperature, which are not read.
Labels
    Seven emotions by the majority of ten raters, ties as ``neutral;happy``, disgust also as
    ``disqust``; valence and arousal, 1 to 5, as the mean over the raters.
Layout
    ``wav/Session01/Sess01_script01_User002M_001.{wav,txt}``, texts in cp949 with marks such as
    ``/o /l \c \n``; ``annotation/Sess01_eval.csv``, raters ``Eval01F`` to ``Eval10M``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from koser.data.corpora.collecting import Collector
from koser.data.corpora.kemdy_tables import (
    LabelPolicy,
    Row,
    check_labels,
    find_tables,
    make_manifest,
    read_rows,
    refuse_unknown_labels,
)
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL

_TABLE = re.compile(r"sess(\d\d)_eval\.csv", re.IGNORECASE)
_SEGMENT = re.compile(r"(Sess(\d\d))_([a-z]+\d\d)_(User\d+([FM]))_(\d+)")


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    tables = survey.matching(_TABLE.fullmatch)
    sound = survey.matching(lambda name: _SEGMENT.fullmatch(name.rpartition(".")[0]))
    found = tables or sound
    return f"annotation tables or segments named like {found[0]}" if found else None


def prepare(
    root: Path,
    *,
    labels: LabelPolicy = "majority",
    min_votes: int | None = None,
    engine: Engine = SERIAL,
) -> Manifest:
    """Read the sessions below `root`.

    Parameters
    ----------
    root : Path
        Folder with ``wav`` and ``annotation``, or any folder above.
    labels : {"majority", "soft"}
        The corpus's own label without ties, or also the distribution of the ten votes; see
        `koser.data.corpora.kemdy_tables.make_manifest`.
    min_votes : int, optional
        With ``"majority"``, raters who must have chosen the label.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per segment with a label. `session` is the pair (``Sess01``).

    Raises
    ------
    ConfigError
        If `labels` is unknown or `min_votes` does not fit it.
    CorpusError
        If there is no annotation table, one is damaged or there twice, or no row is left.
    LabelError
        If a label is none of the seven or their aliases.
    """
    check_labels(labels, min_votes)
    collector = Collector("kemdy20", root, corpus="kemdy20", language="ko", engine=engine)
    tables = find_tables(root, _TABLE, corpus="KEMDy20", names="SessNN_eval.csv")
    rows = [row for path in tables.values() for row in read_rows(path)]
    refuse_unknown_labels(rows, "KEMDy20")
    listed = {row.segment_id for row in rows}
    named = _named(rows, collector)
    return make_manifest(collector, named, listed, labels=labels, min_votes=min_votes)


def _named(rows: list[Row], collector: Collector) -> Iterator[tuple[Row, Mapping[str, str]]]:
    for row in rows:
        name = _SEGMENT.fullmatch(row.segment_id)
        if name is None:
            collector.leave_out(row.segment_id or row.source, "no segment id", row.source)
            continue
        yield (
            row,
            {
                "speaker": name[4],
                "session": name[1],
                "release": name[3],
                "gender": "female" if name[5] == "F" else "male",
            },
        )
