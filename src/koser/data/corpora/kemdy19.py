"""KEMDy19 (ETRI): acted Korean dialogues of pairs of voice actors, rated by ten listeners.

Source
    https://nanum.etri.re.kr/share/kjnoh2/KEMDy19, after signing ETRI's agreement, which
    forbids passing the data on. Cite: K. J. Noh & H. Jeong, "KEMDy19", with that address.
Size
    40 voice actors in 20 sessions of a woman and a man, each with improvised and scripted
    dialogues; 16 kHz, mono, one file per segment. Beside them lie ECG, EDA and temperature,
    which are not read.
Labels
    Seven emotions by the majority of ten raters, ties as ``neutral;happy``; valence and
    arousal, 1 to 5, as the mean over the raters.
Layout
    ``wav/Session01/Sess01_impro01/Sess01_impro01_F001.{wav,txt}`` and, a session,
    ``annotation/Session01_F_res.csv`` and ``Session01_M_res.csv``. **Each table lists the
    segments of both speakers**, because each holds the signals of one body: the woman's
    segments are taken from ``_F``, the man's from ``_M``.
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

_TABLE = re.compile(r"session(\d\d)_([fm])_res\.csv", re.IGNORECASE)
_SEGMENT = re.compile(r"(Sess(\d\d))_([a-z]+)(\d\d)_([FM])(\d+)")


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
        One row per segment with a label. `session` is the pair (``Sess01``), `release` says
        ``impro`` or ``script``.

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
    collector = Collector("kemdy19", root, corpus="kemdy19", language="ko", engine=engine)
    names = "SessionNN_F_res.csv and SessionNN_M_res.csv"
    tables = find_tables(root, _TABLE, corpus="KEMDy19", names=names)
    rows = {(session, speaker): read_rows(path) for (session, speaker), path in tables.items()}
    refuse_unknown_labels((row for of_table in rows.values() for row in of_table), "KEMDy19")
    listed = {row.segment_id for of_table in rows.values() for row in of_table}
    own = _own_rows(rows, collector)
    return make_manifest(collector, own, listed, labels=labels, min_votes=min_votes)


def _own_rows(
    rows: Mapping[tuple[str, str], list[Row]], collector: Collector
) -> Iterator[tuple[Row, Mapping[str, str]]]:
    """Rows of each speaker from the speaker's own table; the others are reported."""
    own = {
        row.segment_id
        for (_, speaker), of_table in rows.items()
        for row in of_table
        if (name := _SEGMENT.fullmatch(row.segment_id)) and name[5] == speaker
    }
    for (_, speaker), of_table in rows.items():
        for row in of_table:
            name = _SEGMENT.fullmatch(row.segment_id)
            if name is None:
                collector.leave_out(row.segment_id or row.source, "no segment id", row.source)
            elif name[5] == speaker:
                yield (
                    row,
                    {
                        "speaker": f"{name[1]}{speaker}",
                        "session": name[1],
                        "release": name[3],
                        "gender": "female" if speaker == "F" else "male",
                    },
                )
            elif row.segment_id in own:
                reason = "listed in the other speaker's table too"
                collector.leave_out(row.segment_id, reason, row.source)
            else:
                reason = "missing from its own speaker's table"
                collector.leave_out(row.segment_id, reason, row.source)
