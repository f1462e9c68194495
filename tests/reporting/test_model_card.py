"""The model card as the Hugging Face Hub's own library reads it."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from fixtures.runs import write_run
from koser.reporting.model_card import write_model_card

HOSTILE = "<script>alert('h')</script>"


def test_the_hub_reads_the_metadata_and_the_results(hostile_run):
    metrics = json.loads((hostile_run / "metrics.json").read_text(encoding="utf-8"))
    card = ModelCard.load(hostile_run / "README.md")
    assert card.data.pipeline_tag == "audio-classification"
    assert card.data.library_name == "koser"
    assert card.data.license == "other"
    assert card.data.model_name == "mfcc_speaker"
    assert "synthetic-data" not in card.data.tags
    found = {result.metric_type: result for result in card.data.eval_results}
    for kind, name in (("recall", "uar"), ("accuracy", "accuracy"), ("f1", "macro_f1")):
        assert found[kind].metric_value == pytest.approx(metrics[name], abs=1e-6)
        # A number never goes without its protocol.
        for part in ("split speaker", f"n = {metrics['n']}", "seeds 42"):
            assert part in found[kind].metric_name
        assert found[kind].dataset_args["split_hash"] == metrics["protocol"]["hash"]


def test_the_card_says_what_the_model_is_for_and_what_limits_it(hostile_run):
    text = ModelCard.load(hostile_run / "README.md").text
    for title in ("Intended use", "Results", "Protocol", "Data", "Limits", "License"):
        assert f"\n## {title}\n" in text
    assert "1 seed(s): the spread over seeds is unknown" in text
    assert HOSTILE not in text
    # Unescaped, only the table's own bars are left in a row of it.
    (row,) = [line for line in text.splitlines() if line.startswith("| \\<script")]
    assert row.replace("\\|", "").count("|") == 4


def test_a_base_model_is_named_only_if_the_hub_has_it(tmp_path, hostile_run):
    for name, expected in (("facebook/wav2vec2-base-960h", True), ("/models/mine", False)):
        folder = write_run(
            tmp_path / name.replace("/", "_"),
            model="wav2vec2",
            config={"encoder": {"name": name}, "train": {"epochs": 1}},
        )
        shutil.copy(hostile_run / "data.json", folder)
        card = ModelCard.load(write_model_card(folder))
        assert (card.data.base_model == [name]) if expected else (card.data.base_model is None)
        assert name.split("/")[-1] in card.text


def test_a_metric_carries_its_interval(tmp_path):
    folder = write_run(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    card = ModelCard.load(write_model_card(folder))
    for result in card.data.eval_results:
        name = {"recall": "uar", "accuracy": "accuracy", "f1": "macro_f1"}[result.metric_type]
        low, high = metrics["ci95"][name]
        assert f"95 % [{low:.4f}, {high:.4f}]" in result.metric_name


def test_synthetic_data_are_called_so_at_the_top(tmp_path):
    card = ModelCard.load(write_model_card(write_run(tmp_path / "run", is_synthetic=True)))
    assert "synthetic-data" in card.data.tags
    assert card.text.lstrip().splitlines()[2].startswith("**SYNTHETIC DATA")
    assert "SYNTHETIC" in card.data.eval_results[0].dataset_name
