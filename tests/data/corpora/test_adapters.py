import inspect
from pathlib import Path

import pytest

from fixtures.aihub263 import invent_rows, wav_bytes, write_corpus
from koser.cli.corpora import CORPORA
from koser.data.corpora import ADAPTERS, prepare
from koser.errors import ConfigError

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_an_adapter_is_called_by_name_with_its_options(tmp_path):
    root = write_corpus(tmp_path / "raw", invent_rows())
    manifest = prepare("aihub263", root, {"labels": "majority", "min_votes": 4})
    assert manifest.provenance.adapter == "aihub263"
    assert manifest.provenance.label_policy == "majority (at least 4 votes)"


def test_a_misspelt_option_is_refused_with_those_the_adapter_takes(tmp_path):
    with pytest.raises(ConfigError, match=r"no option label\. It takes: labels, min_votes"):
        prepare("aihub263", tmp_path, {"label": "soft"})
    with pytest.raises(ConfigError, match=r"no option labels\. It takes: none"):
        prepare("ravdess", tmp_path, {"labels": "soft"})


def test_an_unknown_corpus_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"No adapter for a corpus 'iemocap'.*aihub263.*folder"):
        prepare("iemocap", tmp_path)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_takes_a_root_and_options_by_name_only(name):
    first, *others = inspect.signature(ADAPTERS[name]).parameters.values()
    assert first.default is inspect.Parameter.empty
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in others)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_is_documented_and_in_the_commands_help(name):
    overview = (DOCS / "corpora.md").read_text(encoding="utf-8")
    if name in ("folder", "table"):
        assert f"\n## {name}\n" in overview
    else:
        page = "aihub71631" if name == "aihub71632" else name
        assert f"(corpora/{page}.md)" in overview
        text = (DOCS / "corpora" / f"{page}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {page}")
        for part in ("How to get it", "Layout", "Command", "Quirks handled", "Protocol"):
            assert f"**{part}.**" in text
    assert name in CORPORA


def test_options_are_optional(tmp_path):
    (tmp_path / "angry").mkdir()
    (tmp_path / "angry" / "a.wav").write_bytes(wav_bytes(1))
    assert len(prepare("folder", tmp_path)) == 1
