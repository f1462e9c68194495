"""Which runs may stand in one table, and what the table says."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
import sklearn.metrics

from fixtures.runs import LABELS, write_run
from koser.errors import ComparisonError, RunError
from koser.reporting.comparison import compare_runs
from koser.reporting.comparison_page import Appendix, write_comparison
from koser.reporting.comparison_tables import as_csv, as_markdown, cost_table, result_table
from koser.reporting.language import load_phrases

EN = load_phrases("en")


@pytest.fixture
def three(tmp_path):
    """Three systems on the same utterances; the first is the baseline."""
    return [
        write_run(tmp_path / "base", accuracy=0.5, seed=1),
        write_run(tmp_path / "better", accuracy=0.8, seed=2, model="wav2vec2"),
        write_run(tmp_path / "worse", accuracy=0.3, seed=3, model="wav2vec2ft"),
    ]


def scored(folder):
    """Accuracy, UAR and macro-F1 of a run, by scikit-learn."""
    table = pl.read_parquet(folder / "predictions.parquet")
    y_true, y_pred = table["label"], table["predicted"]
    return {
        "accuracy": sklearn.metrics.accuracy_score(y_true, y_pred),
        "uar": sklearn.metrics.recall_score(y_true, y_pred, average="macro"),
        "macro_f1": sklearn.metrics.f1_score(y_true, y_pred, average="macro"),
    }


def test_the_csv_holds_what_scikit_learn_computes_from_the_predictions(three):
    rows = list(csv.DictReader(io.StringIO(as_csv(compare_runs(three)))))
    base = scored(three[0])
    assert [row["folder"] for row in rows] == [str(folder) for folder in three]
    for row, folder in zip(rows, three, strict=True):
        for name, value in scored(folder).items():
            assert float(row[name]) == pytest.approx(value, abs=1e-12)
        for name in ("accuracy", "uar"):
            if folder is three[0]:
                assert row[f"{name}_minus_baseline"] == row[f"{name}_p"] == ""
            else:
                difference = scored(folder)[name] - base[name]
                assert float(row[f"{name}_minus_baseline"]) == pytest.approx(difference, abs=1e-12)
                low, high = (float(row[f"{name}_minus_baseline_{end}"]) for end in ("low", "high"))
                assert low < difference < high
        assert row["is_baseline"] == str(folder is three[0])


def test_the_markdown_parses_back_to_the_table(three):
    comparison = compare_runs(three)
    table = result_table(comparison, EN)
    lines = [line for line in as_markdown(comparison, EN).splitlines() if line.startswith("|")]
    cells = [
        [re.sub(r"\\(.)", r"\1", cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
    ]
    assert cells[0] == [name for name, _ in table.head]
    assert cells[2:5] == [list(row) for row in table.rows]
    accuracy = scored(three[1])["accuracy"]
    assert cells[3][2].startswith(f"{100 * accuracy:.2f} %")
    assert cells[3][6].startswith(f"{100 * (accuracy - scored(three[0])['accuracy']):+.2f}")


def test_p_values_are_holms_over_all_pairs(three):
    pairs = compare_runs(three).pairs
    assert len(pairs) == 3
    raw = [pair.p_values["accuracy"] for pair in pairs]
    order, largest, expected = np.argsort(raw), 0.0, [0.0] * 3
    for rank, place in enumerate(order):  # Holm (1979), written down from its definition
        largest = max(largest, min(1.0, (3 - rank) * raw[place]))
        expected[place] = largest
    assert [pair.p_adjusted["accuracy"] for pair in pairs] == pytest.approx(expected)


def test_another_baseline_turns_the_differences_round(three):
    forwards = compare_runs(three)
    backwards = compare_runs(three, baseline=three[1])
    of_second = forwards.rows[1].against_baseline.differences["accuracy"]
    of_first = backwards.rows[0].against_baseline.differences["accuracy"]
    assert of_first.value == pytest.approx(-of_second.value)
    assert of_first.low == pytest.approx(-of_second.high)
    assert backwards.baseline.run.folder == three[1]
    # The pairs with the baseline come first, as "other minus baseline".
    assert [pair.second for pair in backwards.pairs[:2]] == [backwards.baseline.title] * 2


MIXTURES = {
    "protocol": (
        {"protocol": {"protocol": "random", "hash": "f" * 32, "n_folds": 1, "notes": []}},
        r"another protocol \(random, split ffffffff; speaker, split 01234567\)",
    ),
    "split": (
        {"protocol": {"protocol": "speaker", "hash": "f" * 32, "n_folds": 1, "notes": []}},
        r"another split of the protocol 'speaker' \(ffffffff; 01234567\)",
    ),
    "labels": ({"labels": ("angry", "neutral", "fear")}, r"other labels \(angry, neutral, fear;"),
    "utterances": (
        {"ids": [f"u{number:03d}" for number in range(1, 97)]},
        r"other test utterances \(2 of 97 were tested in one run only\)",
    ),
    "references": (
        {"y_true": [LABELS[(number + (number < 6)) % 3] for number in range(96)]},
        r"other reference labels \(6 of 96 test utterances\)",
    ),
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_mixed_runs_are_refused_in_one_line_unless_they_are_asked_for(tmp_path, three, kind):
    changes, message = MIXTURES[kind]
    other = write_run(tmp_path / "other", seed=9, model="multimodal", **changes)
    with pytest.raises(ComparisonError, match=message) as refusal:
        compare_runs([*three, other])
    assert "--allow-mixed" in str(refusal.value)
    assert "\n" not in str(refusal.value)

    mixed = compare_runs([*three, other], allow_mixed=True)
    apart = mixed.rows[-1]
    assert re.search(message, apart.why_apart)
    assert apart.against_baseline is None
    assert all(apart.title not in (pair.first, pair.second) for pair in mixed.pairs)
    # What may be compared is compared as without it.
    alone = compare_runs(three).rows[1].against_baseline
    assert mixed.rows[1].against_baseline.to_dict() == alone.to_dict()
    # And each row says why, in either language.
    for language, word in (("en", "stands apart"), ("ko", "견줄 수 없음")):
        cells = result_table(mixed, load_phrases(language)).rows
        assert [word in " ".join(row) for row in cells] == [False, False, False, True]
        assert "other" not in cells[3][-1] or language == "en"


def test_runs_that_are_none_are_refused(tmp_path, three):
    cases = [
        ([three[0]], {}, ComparisonError, "at least two"),
        ([three[0], three[1], three[0]], {}, ComparisonError, "given 2 times"),
        (three[:2], {"baseline": three[2]}, ComparisonError, "not among the compared"),
        ([three[0], tmp_path / "absent"], {}, RunError, "no run.json"),
    ]
    for folders, options, error, message in cases:
        with pytest.raises(error, match=message):
            compare_runs(folders, **options)
    (three[1] / "metrics.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        compare_runs(three)


def test_predictions_of_another_version_are_refused(three):
    path = three[1] / "predictions.parquet"
    pl.read_parquet(path).drop("cluster").write_parquet(path)
    with pytest.raises(RunError, match=r"no column cluster.*Train again"):
        compare_runs(three)


def test_a_difference_that_is_the_same_in_every_speaker_stands_without_interval(koser, tmp_path):
    folders = []
    for name, n_right in (("base", 20), ("better", 28)):
        folder = write_run(tmp_path / name, clusters=["a"] * 48 + ["b"] * 48)
        table = pl.read_parquet(folder / "predictions.parquet")
        turned = {label: LABELS[place - 1] for place, label in enumerate(LABELS)}
        is_right = pl.int_range(pl.len()) % 48 < n_right
        predicted = pl.when(is_right).then("label").otherwise(pl.col("label").replace(turned))
        table.with_columns(predicted=predicted).write_parquet(folder / "predictions.parquet")
        folders.append(folder)
    outs = [tmp_path / f"c{suffix}" for suffix in (".csv", ".md", ".html")]
    status, printed, err = koser("compare", *folders, *(f"--out={path}" for path in outs))
    assert (status, err) == (0, "")
    texts = {path.suffix: path.read_text(encoding="utf-8") for path in outs}
    for text in (printed, texts[".md"], texts[".html"]):
        assert "+16.67" in text
        assert "+16.67 [" not in text
        assert "[+16.7" not in text
    assert "No interval of UAR, accuracy, macro-F1: the same in every" in printed
    (_, row) = csv.DictReader(io.StringIO(texts[".csv"]))
    assert float(row["accuracy_minus_baseline"]) == pytest.approx(8 / 48)
    assert row["accuracy_minus_baseline_low"] == row["uar_minus_baseline_high"] == ""


def test_without_speakers_there_are_differences_but_no_tests(tmp_path):
    folders = [
        write_run(tmp_path / name, seed=seed, clusters=["s"] * 96) for seed, name in enumerate("ab")
    ]
    for folder in folders:
        path = folder / "predictions.parquet"
        table = pl.read_parquet(path).with_columns(pl.lit(None, pl.String).alias("cluster"))
        table.write_parquet(path)
    comparison = compare_runs(folders)
    (pair,) = comparison.pairs
    assert pair.differences["accuracy"].value is not None
    assert pair.p_values["accuracy"] is None
    assert "speakers are unknown" in as_markdown(comparison, EN)


def test_no_two_rows_are_called_alike(tmp_path):
    encoder = {"encoder": {"name": "/models/<i>whisper|base</i>"}}
    other = {"encoder": {"name": "/models/<i>other|base</i>"}}
    folders = [
        write_run(tmp_path / "one" / "x", seed=1, model="wav2vec2", config=encoder),
        write_run(tmp_path / "two" / "x", seed=1, model="wav2vec2", config=encoder),
        write_run(tmp_path / "three", seed=2, model="wav2vec2", config=other),
        write_run(tmp_path / "four", seed=3),
    ]
    comparison = compare_runs(folders)
    titles = [row.title for row in comparison.rows]
    assert len(set(titles)) == 4
    assert titles[2:] == ["wav2vec2 (i>), encoder.name=/models/<i>other|base</i>", "mfcc"]
    # A hostile name opens no column and no element.
    lines = [line for line in as_markdown(comparison, EN).splitlines() if line.startswith("| 1")]
    assert len(re.split(r"(?<!\\)\|", lines[0])) - 2 == len(result_table(comparison, EN).head)
    write_comparison(comparison, tmp_path / "c.html", language="en")
    assert "<i>" not in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_a_row_is_called_by_what_tells_it_from_the_others(tmp_path):
    def heard(whisper, kind):
        models = {"whisper": {"name": whisper}, "text": {"name": "klue/bert-base"}}
        return {**models, "fusion": {"kind": kind}, "train": {"epochs": 9}}

    folders = [
        write_run(tmp_path / "a", seed=0, model="multimodal", config=heard("small", "concat")),
        write_run(tmp_path / "b", seed=0, model="multimodal", config=heard("medium", "concat")),
        write_run(tmp_path / "c", seed=0, model="multimodal", config=heard("medium", "gated")),
        write_run(tmp_path / "d", seed=0, model="mfcc", config={"train": {"epochs": 9}}),
    ]
    assert titles_of(folders) == [
        "multimodal (small)",
        "multimodal (medium), fusion.kind=concat",
        "multimodal (medium), fusion.kind=gated",
        "mfcc",
    ]
    # What all of them have is said once, below the table.
    assert "text model bert-base" in as_markdown(compare_runs(folders), EN)
    assert titles_of(folders[1:3]) == [
        "multimodal, fusion.kind=concat",
        "multimodal, fusion.kind=gated",
    ]
    many = {"train": {"epochs": 8, "patience": 1, "batch_size": 2}}
    other = write_run(tmp_path / "e", seed=0, model="mfcc", config=many)
    assert titles_of([folders[3], other]) == ["mfcc, d", "mfcc, e"]


def titles_of(folders):
    return [row.title for row in compare_runs(folders).rows]


def test_costs_are_those_that_the_runs_measured(three):
    rows = cost_table(compare_runs(three), EN).rows
    assert rows[0][1:] == ("1.2 M", "35 k", "1 min 15 s", "0.0123", "512 MB")


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "action")]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_page_says_the_same_and_loads_nothing(tmp_path, three, language):
    comparison = compare_runs(three)
    gap = {"first": "random", "second": "speaker", "accuracy": 0.13, "uar": 0.2,
           "ci95": {"accuracy": [0.1, 0.16], "uar": None}}  # fmt: skip
    appendix = Appendix([gap], {"multimodal": "no <hub>"})
    write_comparison(comparison, tmp_path / "c.html", language=language, appendix=appendix)
    page = _Page()
    html = (tmp_path / "c.html").read_text(encoding="utf-8")
    page.feed(html)
    assert all(link.startswith("#") for link in page.links)
    assert f'<html lang="{language}">' in html
    text = re.sub(r"\s+", " ", "".join(page.text))
    for row in result_table(comparison, load_phrases(language)).rows:
        for cell in row:
            assert cell in text
    for expected in ("+13.00 [+10.0, +16.0]", "no <hub>"):
        assert expected in text


def test_a_kind_of_file_that_is_not_written_is_refused(tmp_path, three):
    with pytest.raises(ComparisonError, match=r"\.html, \.md, \.csv"):
        write_comparison(compare_runs(three), tmp_path / "c.xlsx")


def test_the_command_prints_the_table_and_refuses_with_status_1(koser, tmp_path, three):
    status, out, err = koser("compare", *three, "--out", "x.csv", "--out", "x.md")
    assert (status, err) == (0, "")
    assert "baseline" in out
    assert (tmp_path / "x.csv").is_file()
    assert (tmp_path / "x.md").is_file()
    metrics = json.loads((three[1] / "metrics.json").read_text(encoding="utf-8"))
    metrics["protocol"]["hash"] = "a" * 32
    (three[1] / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    status, out, err = koser("compare", *three, "--out", "y.csv")
    assert status == 1
    assert out == ""
    assert err.count("\n") == 1
    assert not (tmp_path / "y.csv").exists()


@pytest.mark.parametrize(
    ("kind", "said", "in_korean"),
    [
        ("utterance", "utterances", "학습·검증에서도 썼습니다"),
        ("speaker", "speakers", "같은 화자가 3명 있습니다"),
        ("session", "sessions", "같은 세션이 3개 있습니다"),
        ("script", "sentences", "같은 문장이 3개 있습니다"),
    ],
)
def test_what_test_shares_with_train_stands_below_the_scores(tmp_path, kind, said, in_korean):
    """Five systems of 100 % beside each other look like a result."""
    leaks = [
        {"kind": kind, "n_shared": 3, "n_utterances": 1200, "fold": 0},
        {"kind": "text", "n_shared": None, "n_utterances": 0, "fold": 0},
    ]
    runs = [write_run(tmp_path / name, seed=n, leaks=leaks) for n, name in enumerate("ab")]
    comparison = compare_runs(runs)
    (first, *_) = [line for line in as_markdown(comparison, EN).splitlines() if line[:2] == "- "]
    assert first.startswith(f"- Test shares 3 {said} with train and val (1,200 test utterances")
    assert as_markdown(comparison, EN).count("Test shares") == 1
    assert in_korean in as_markdown(comparison, load_phrases("ko"))
    clean = compare_runs([write_run(tmp_path / name, seed=n) for n, name in enumerate("cd")])
    assert "Test shares" not in as_markdown(clean, EN)
