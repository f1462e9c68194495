"""The report as a reader, a screen reader and a hostile corpus meet it."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import soundfile

from koser.audio.encoding import encode_flac
from koser.audio.reading import load
from koser.errors import RunError
from koser.reporting import figures
from koser.reporting.language import load_phrases
from koser.reporting.report import ReportOptions, write_report
from koser.reporting.sections.mistakes import MAX_CLIP_SECONDS, worst_mistakes

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.words, self._open = [], [], []
        self.feed(html)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module", params=["ko", "en"])
def page(request, hostile_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    write_report(hostile_run, ReportOptions(request.param), path=path)
    return Page(path.read_text(encoding="utf-8"))


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_anywhere(page):
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), value
    assert not re.search(r"url\(|@import", page.text)


def test_what_the_corpus_says_stays_text(page):
    assert not page.all("script")
    assert not page.all("img")
    assert "<script>alert('h')</script>" in page.text
    assert "onerror" in page.text
    assert not any("onerror" in attributes for _, attributes in page.elements)


def test_a_screen_reader_finds_its_way(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(heading.get("scope") in ("row", "col") for heading in page.all("th"))
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in page.all("svg"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    named = [link["href"][1:] for link in page.all("a")]
    named += [section["aria-labelledby"] for section in page.all("section")]
    assert set(named) <= set(ids)
    assert len(page.all("section")) >= 10


def test_every_number_of_the_result_is_on_the_page(page, hostile_run):
    metrics = metrics_of(hostile_run)
    for name in ("uar", "accuracy", "macro_f1", "nll", "ece"):
        assert figures.score(metrics[name], metrics["ci95"][name]) in page.text
    for row in metrics["confusion"]:
        n = sum(row)
        for count in row:
            assert f"{count / n:.1%}".replace("%", " %") in page.text
    card = json.loads((hostile_run / "data.json").read_text(encoding="utf-8"))
    for expected in (
        metrics["protocol"]["hash"], f"{metrics['chance_uar']:.3f}", str(card["n_rows_in"]),
        "koser train --out '<i>'", "epochs = 2",
    ):  # fmt: skip
        assert expected in page.text


def test_a_report_is_the_same_bytes_each_time(hostile_run, tmp_path):
    written = [write_report(hostile_run, path=tmp_path / name).read_bytes() for name in "ab"]
    assert written[0] == written[1]


def test_the_worst_mistakes_are_the_most_confident_wrong_answers(hostile_run):
    table = pl.read_parquet(hostile_run / "predictions.parquet")
    wrong = table.filter(pl.col("label") != pl.col("predicted"))
    assert wrong.height, "two epochs were too good"
    confidence = wrong.select(pl.max_horizontal(pl.col("^p_.*$"))).to_series()
    found = worst_mistakes(table, load_phrases("en"), n_clips=0)
    assert [each.id for each in found] == [
        name for _, name in sorted(zip(-confidence, wrong["id"], strict=True))
    ][: len(found)]
    assert all(each.audio == each.why_silent == "" for each in found)


def test_sound_is_inside_only_where_it_is_asked_for(hostile_run, tmp_path):
    silent = write_report(hostile_run, path=tmp_path / "silent.html").read_text("utf-8")
    assert "<audio" not in silent
    assert "AI Hub" in silent  # and it says why
    table = pl.read_parquet(hostile_run / "predictions.parquet")
    options = ReportOptions("en", n_clips=1)
    loud = Page(write_report(hostile_run, options, path=tmp_path / "loud.html").read_text("utf-8"))
    (player,) = loud.all("audio")
    kind, _, content = player["src"].partition(";base64,")
    assert kind == "data:audio/flac"
    heard, sampling_rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    (worst, *_) = worst_mistakes(table, load_phrases("en"), n_clips=0)
    original = load(table.filter(id=worst.id)["path"][0])
    assert sampling_rate == 16_000
    np.testing.assert_allclose(heard, original, atol=2**-15)


def test_a_clip_is_cut_and_what_does_not_fit_is_named(tmp_path, write_wav):
    noise = np.random.default_rng(0).uniform(-1, 1, 16_000 * 20).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", noise, 16_000, "PCM_16")
    rows = [
        {"id": f"u{number}", "path": str(tmp_path / "long.wav"), "start": None, "end": None,
         "duration": 20.0, "label": "angry", "predicted": "neutral", "p_angry": 0.1,
         "p_neutral": 0.9}
        for number in range(30)
    ]  # fmt: skip
    rows.append({**rows[0], "id": "gone", "path": "/no/such.wav", "p_angry": 0.0, "p_neutral": 1.0})
    found = worst_mistakes(pl.DataFrame(rows), load_phrases("en"), n_clips=30)
    assert found[0].id == "gone"
    assert "/no/such.wav" in found[0].why_silent
    audio = base64.b64decode(found[1].audio.partition(",")[2])
    assert soundfile.info(io.BytesIO(audio)).duration == pytest.approx(MAX_CLIP_SECONDS)
    assert sum(len(each.audio) for each in found) <= 2_000_000
    assert any("limit of 2 MB" in each.why_silent for each in found)


def test_flac_clips_what_is_too_loud_instead_of_wrapping_it():
    heard, _ = soundfile.read(io.BytesIO(encode_flac(np.array([2.0, -2.0, 0.5], np.float32), 8000)))
    np.testing.assert_allclose(heard, [1, -1, 0.5], atol=1e-4)


def test_an_unfinished_run_has_no_report(hostile_run, tmp_path):
    with pytest.raises(RunError, match=r"no run\.json"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="is not finished"):
        write_report(tmp_path)


def test_the_command_writes_the_report_again_in_another_language(koser, hostile_run, tmp_path):
    status, _, err = koser("report", hostile_run, "--out", "r.html", "--report-language", "ko")
    assert (status, err) == (0, "")
    assert '<html lang="ko">' in (tmp_path / "r.html").read_text(encoding="utf-8")
    status, _, err = koser("report", hostile_run, "--report-language", "xx")
    assert status == 1
    assert "Languages: ko, en" in err
