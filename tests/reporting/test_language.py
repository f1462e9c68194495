"""Both languages say everything, with the same values in it."""

import re
import tomllib
from importlib import resources

import numpy as np
import pytest

from koser.errors import ConfigError
from koser.evaluation.comparison import compare_systems
from koser.evaluation.pairing import Answers
from koser.evaluation.scoring import evaluate
from koser.reporting.language import LANGUAGES, load_phrases

# Sections that name values of data; what they lack is shown as it is.
OPEN = (
    "audit.columns.", "audit.values.", "subgroups.values.", "parts.", "clusters.", "methods.",
    "ablations.values.", "protocols.", "facts.",
)  # fmt: skip


def phrases_of(language):
    def flat(values, prefix=""):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    file = resources.files("koser.reporting") / "phrases" / f"{language}.toml"
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    values.pop("sentences", None)
    return {key: text for key, text in flat(values) if not key.startswith(OPEN)}


def test_every_phrase_is_in_every_language_with_the_same_places_for_values():
    korean, english = phrases_of("ko"), phrases_of("en")
    assert korean.keys() == english.keys()
    for key, text in english.items():
        places = [sorted(set(re.findall(r"{\w*}", each))) for each in (text, korean[key])]
        assert places[0] == places[1], key


def test_korean_phrases_are_korean():
    english, korean = phrases_of("en"), phrases_of("ko")
    same = {key for key, text in korean.items() if text == english[key]}
    # Names of scores and signs are the same in both.
    assert all(len(english[key]) < 26 for key in same), same


@pytest.mark.parametrize(
    ("english", "korean"),
    [
        (
            "UAR over 6 of 7 labels: no test utterance is 'fear' (macro-F1 likewise).",
            "UAR은 라벨 7개 중 6개의 평균입니다: 'fear'인 시험 발화가 없습니다 (매크로 F1도 같음).",
        ),
        (
            "Counts are over 2 seeds: each of the 36 utterances was tested 2 times.",
            "발화 수는 시드 2개를 합한 값입니다: 발화 36개를 각각 2번 시험했습니다.",
        ),
    ],
)
def test_sentences_of_results_are_translated_with_their_values(english, korean):
    assert load_phrases("ko").notes([english]) == [(korean, "")]
    assert load_phrases("en").notes([english]) == [(english, "")]


@pytest.mark.parametrize(
    ("english", "korean"),
    [
        (
            "ravdess: 4 utterances have no transcript and no script.",
            "ravdess: 발화 4개는 전사도 대본도 없습니다.",
        ),
        (
            "a+b: ravdess: Labels mapped by 'four': every label stays as it is.",
            "a+b: ravdess: 'four' 매핑: 바뀐 라벨이 없습니다.",
        ),
        (
            "Labels mapped by 'four': calm → neutral (192 rows); fear left out (9 rows: few; odd).",
            "'four' 매핑으로 바꾼 라벨: calm → neutral (192행); fear 제외 (9행: few; odd).",
        ),
        ("120 utterances with the corpus's own text", "말뭉치에 원문이 있는 발화 120개"),
    ],
)
def test_what_a_sentence_is_about_and_what_it_lists_is_kept(english, korean):
    assert load_phrases("ko").notes([english]) == [(korean, "")]
    assert load_phrases("en").notes([english]) == [(english, "")]


def test_a_sentence_that_nobody_translated_stays_and_is_marked():
    for note in ("A new note.", "ravdess: A new note."):
        assert load_phrases("ko").notes([note]) == [(note, "en")]


def test_labels_have_korean_names_where_there_are_any():
    assert load_phrases("ko").label("sadness") == "슬픔 (sadness)"
    assert load_phrases("ko").label("당황") == "당황"
    assert load_phrases("en").label("sadness") == "sadness"


def test_another_language_is_refused():
    with pytest.raises(ConfigError, match=f"Languages: {', '.join(LANGUAGES)}"):
        load_phrases("ja")


def test_what_evaluation_says_beside_its_numbers_is_said_in_korean():
    """The sentences of the code itself, so that a new wording there is noticed here."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], 40)
    labels = ["angry", "neutral", "sadness"]
    y_true = np.array(["angry", "neutral"] * 20)
    said = []
    for clusters in (None, ["a", "b"] * 20, ["a"] * 40):
        said += evaluate(y_true, probabilities, labels=labels, clusters=clusters).notes
    answers = [
        Answers(name, np.arange(40).astype(str), y_true, rng.permutation(y_true), ["a", "b"] * 20)
        for name in ("one", "two")
    ]
    said += compare_systems(*answers, labels=labels).notes
    assert len(said) >= 5
    translated = load_phrases("ko").notes(said)
    assert {language for _, language in translated} == {""}, translated
