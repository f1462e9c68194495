import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fixtures.audits import clean_rows
from fixtures.manifests import manifest
from koser.data.audit.tables import cramers_v, label_tables


def test_tables_count_every_utterance_once_and_have_every_label():
    rows = clean_rows()
    rows[5]["gender"] = None
    tables = {table.name: table for table in label_tables(manifest(rows))}
    assert set(tables) == {"release", "gender", "age", "duration"}
    for table in tables.values():
        assert sum(map(sum, table.counts)) == len(rows)
        assert table.labels == ("angry", "happiness", "neutral", "sadness")
        assert len(table.counts) == 4
    assert "unknown" in tables["gender"].columns
    label, release = rows[0]["label"], rows[0]["release"]
    expected = sum(row["label"] == label and row["release"] == release for row in rows)
    table = tables["release"]
    counts = table.counts[table.labels.index(label)]
    assert counts[table.columns.index(release)] == expected


def test_quarters_of_the_durations_hold_equal_numbers_in_ascending_order():
    rows = [{"label": "angry", "duration": 1.0 + n / 10} for n in range(100)]
    (*_, table) = label_tables(manifest(rows, None))
    assert table.counts == ((25, 25, 25, 25),)
    starts = [float(name.partition("–")[0]) for name in table.columns]
    assert starts == sorted(starts)
    assert table.association is None


def test_durations_that_are_all_equal_are_one_column():
    (*_, table) = label_tables(manifest([{"label": "angry"}, {"label": "neutral"}], None))
    assert (table.columns, table.counts) == (("2.0 s",), ((1,), (1,)))


@given(arrays(np.int64, (3, 4), elements=st.integers(0, 50)))
def test_the_association_is_between_0_and_1_and_knows_no_order(counts):
    value = cramers_v(counts)
    if value is not None:
        assert 0 <= value <= 1
        assert cramers_v(counts[::-1, ::-1]) == pytest.approx(value)
        assert cramers_v(counts.T) == pytest.approx(value)


def test_without_association_the_corrected_value_does_not_grow_with_the_table():
    rng = np.random.default_rng(0)
    values = [cramers_v(rng.multinomial(300, np.ones(70) / 70).reshape(7, 10)) for _ in range(60)]
    assert np.mean(values) < 0.05
