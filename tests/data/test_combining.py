"""Several corpora as one: nobody is two people's namesake, and splits stay valid."""

import polars as pl
import pytest

from fixtures.manifests import manifest
from koser.data.combining import combine
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions, make_split
from koser.errors import ManifestError, SplitError

SENTENCES = (
    "정말 기분이 좋아",
    "너무 무서워서 울었어",
    "오늘은 그냥 집에 있을래",
    "왜 그렇게 화를 내니",
)


def corpus(name, labels=("angry", "neutral"), *, n_speakers=6, grouping="speaker", **more):
    rows = [
        {
            "label": labels[(speaker + take) % len(labels)],
            "speaker": f"{speaker:02d}",
            "group": f"{20 + speaker} female",
            "session": "1",
            "corpus": name,
            "text": SENTENCES[take],
            **more,
        }
        for speaker in range(n_speakers)
        for take in range(4)
    ]
    return manifest(rows, grouping)


def test_same_names_in_two_corpora_become_different_ones():
    both = combine([corpus("a"), corpus("b")])
    assert len(both) == 48
    assert both.table["id"].n_unique() == 48
    assert both.table["speaker"].n_unique() == 12
    assert both.table["session"].unique().sort().to_list() == ["a/1", "b/1"]
    assert both.provenance.n_rows_in == 48
    assert both.provenance.grouping == "speaker"
    assert both.table["text"].n_unique() == 4


@pytest.mark.parametrize("protocol", ["speaker", "kfold", "leave_one_speaker_out"])
def test_no_speaker_of_any_corpus_is_on_both_sides(protocol):
    both = combine([corpus("a"), corpus("b", n_speakers=9)])
    split = make_split(both, protocol, SplitOptions(val_fraction=0.2))
    leaks = {leak.kind: leak for leak in split.leakage(both)}
    assert leaks["speaker"].n_shared == 0
    # Speaker 03 of one corpus may train while the other's is tested: they are two people.
    parts = split.table.join(both.table.select("id", "speaker"), on="id")
    per_speaker = parts.filter(pl.col("part") != "left_out").group_by("fold", "speaker")
    assert (per_speaker.agg(pl.col("part").n_unique())["part"] == 1).all()


def test_a_sentence_of_two_corpora_is_one_script():
    both = combine([corpus("a", n_speakers=10), corpus("b", n_speakers=10)])
    split = make_split(both, "speaker+script", SplitOptions(test_fraction=0.3))
    leaks = {leak.kind: leak for leak in split.leakage(both)}
    assert leaks["script"].n_shared == 0
    tested = both.table.filter(pl.col("id").is_in(split.ids(0, "test")))
    learnt = both.table.filter(pl.col("id").is_in(split.ids(0, "train")))
    assert not set(tested["text"]) & set(learnt["text"])


def test_labels_are_those_of_any_corpus_and_distributions_keep_their_meaning():
    first = corpus("a", ("angry", "sadness"))
    second = corpus("b", ("fear", "sadness"))
    shares = pl.Series("distribution", [[0.25, 0.75]] * 24)
    first = Manifest(first.table.with_columns(shares), first.provenance)
    both = combine([first, second])
    assert both.labels == ("angry", "fear", "sadness")
    assert both.table["distribution"][0].to_list() == [0.25, 0, 0.75]
    assert both.table["distribution"][30] is None
    assert any("Only a has the label angry" in note for note in both.provenance.notes)
    assert not any("label sadness" in note for note in both.provenance.notes)


def test_where_one_corpus_knows_groups_only_a_speaker_is_a_group_of_one():
    both = combine([corpus("a"), corpus("b", grouping="group(age×gender)")])
    assert both.provenance.grouping == "speaker or group(age×gender)"
    assert both.grouping_column == "group"
    assert set(both.table.filter(corpus="a")["group"]) == {f"a/{n:02d}" for n in range(6)}
    assert make_split(both, "speaker").grouping == "speaker or group(age×gender)"


def test_where_one_corpus_knows_nobody_no_speaker_protocol_is_possible():
    both = combine([corpus("a"), corpus("b", grouping=None, speaker=None)])
    assert both.provenance.grouping is None
    with pytest.raises(SplitError, match="needs to know who speaks"):
        make_split(both, "speaker")


def test_one_corpus_alone_stays_as_it_is_and_one_twice_is_refused():
    alone = corpus("a")
    assert combine([alone]) is alone
    with pytest.raises(ManifestError, match="The corpus a is in two of the manifests"):
        combine([alone, corpus("b"), corpus("a")])


def test_the_order_of_the_manifests_does_not_change_the_split():
    one, other = corpus("a"), corpus("b", n_speakers=8)
    hashes = {make_split(combine(each), "speaker").hash for each in ([one, other], [other, one])}
    assert len(hashes) == 1
