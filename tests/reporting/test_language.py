"""Both languages say everything, with the same values in it."""

import ast
import re
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from koser.data import corpora
from koser.data.mapping import read_mapping, shipped_mappings
from koser.errors import ConfigError
from koser.evaluation.comparison import compare_systems
from koser.evaluation.pairing import Answers
from koser.evaluation.scoring import evaluate
from koser.reporting.language import LANGUAGES, load_phrases
from koser.reporting.sections.data import data_rows

# Sections that name values of data; what they lack is shown as it is.
OPEN = (
    "audit.columns.", "audit.values.", "subgroups.values.", "parts.", "clusters.", "methods.",
    "ablations.values.", "protocols.", "facts.", "reasons.", "scores.names.",
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
        (
            "Only 4 clusters (speaker): the intervals are wide, and hold only if these few are "
            "like all others.",
            "묶음(화자)이 4개뿐이어서 신뢰구간이 넓고, 이 몇 개가 나머지와 비슷할 때만 맞습니다.",
        ),
        (
            "No interval of UAR, accuracy, the recall of 'angry': the same in every cluster "
            "(group(age×gender)), which says nothing about others.",
            "UAR, 정확도, 재현율 'angry'의 신뢰구간 없음: 모든 묶음(나이×성별 집단)에서 같아, 다른 "
            "묶음에 대해 말해 주지 않습니다.",
        ),
        (
            "No interval of UAR, macro-F1 and the recall of 'fear' and 'disgust': only one cluster "
            "(speaker) has utterances of it.",
            "UAR, 매크로 F1, 재현율 'fear', 'disgust'의 신뢰구간 없음: 해당 발화가 "
            "한 묶음(화자)에만 있습니다.",
        ),
        (
            "On both sides: 3 speakers, with 9 test utterances (fold 0), although the split keeps "
            "speaker+script apart.",
            "3개가 양쪽에 있고 시험 발화 9개가 해당합니다(0번 겹). 분할은 화자+문장을(를) 떼어 "
            "놓는다고 표시되어 있습니다.",
        ),
        ("from gender, leading silence", "사용: 성별, 앞 무음"),
        (
            "All recordings are taken for aihub71631, as asked for, although their folders' names "
            "say aihub71632.",
            "모든 녹음을 aihub71631(으)로 보았습니다: 지정한 대로이며, 폴더 이름은 "
            "aihub71632입니다.",
        ),
        (
            "All recordings are taken for aihub71631, and no folder's name says otherwise (a, b).",
            "모든 녹음을 aihub71631(으)로 보았습니다: 다르게 말하는 폴더 이름이 없습니다(a, b).",
        ),
        (
            "Recordings are taken for what their folders' names say: 1,200 for a, 3 for b.",
            "녹음이 어느 말뭉치인지는 폴더 이름을 따랐습니다: a 1,200개, b 3개.",
        ),
        (
            "Not in the gap: '2 to 4 s', '20s' (fewer than 20 utterances or 5 clusters).",
            "차이 계산에서 제외: '2–4초', '20s' (발화 20개 미만 또는 묶음 5개 미만).",
        ),
        (
            "No UAR of 'f1', 'female' and 3 others: not every label occurs there.",
            "UAR 없음: 'f1', '여성', 그 밖의 3개 (모든 라벨이 나오지는 않음).",
        ),
        (
            "Labels mapped by 'four': fear left out (9 rows: none of the four); kind left out "
            "(2 rows: my own reason).",
            "'four' 매핑으로 바꾼 라벨: fear 제외 (9행: 네 라벨에 들지 않음); kind 제외 (2행: "
            "my own reason).",
        ),
    ],
)
def test_what_a_sentence_is_about_and_what_it_lists_is_kept(english, korean):
    assert load_phrases("ko").notes([english]) == [(korean, "")]
    assert load_phrases("en").notes([english]) == [(english, "")]


@pytest.mark.parametrize(
    ("policy", "korean"),
    [
        ("column 'label', mapped by 'four'", "'label' 열, 'four' 매핑으로 바꿈"),
        ("scripted emotion", "연기한 감정"),
        ("situation", "situation"),  # what --labels takes
        ("majority (at least 3 votes)", "majority (3표 이상)"),
        (
            "ravdess: scripted emotion; my.corpus: folder name, mapped by 'four'",
            "ravdess: 연기한 감정; my.corpus: 폴더 이름, 'four' 매핑으로 바꿈",
        ),
    ],
)
def test_the_data_card_is_in_the_language_of_its_report(policy, korean):
    left_out = {
        "label 'fear' dropped by the mapping 'four'": 2,
        "fewer than 3 votes for one label": 1,
        "no speaker": 4,
        "a reason of a later version": 5,
    }
    card = {
        "corpora": ["a"], "languages": ["ko"], "adapter": "table", "label_policy": policy,
        "grouping": "group(age×gender)", "n_speakers": 3, "n_utterances": 9, "n_rows_in": 21,
        "durations": dict.fromkeys(("hours", "mean", "shortest", "longest", "share_long"), 0.5),
        "left_out": left_out, "n_unlisted": 0, "per_release": {"5차": 9}, "agreement": [],
        "formats": {"16000 Hz, 1 channel": 5, "44100 Hz, 2 channels": 4},
        "per_gender": {"female": 4, "male": 5},
    }  # fmt: skip
    rows = dict(data_rows(card, load_phrases("ko")))
    assert rows["라벨 기준"] == korean
    assert rows["화자 단위"] == "나이×성별 집단"
    assert rows["음성 형식"] == "16000 Hz, 1채널: 5, 44100 Hz, 2채널: 4"
    assert rows["성별"] == "여성: 4, 남성: 5"
    assert [name for name in rows if name.startswith("제외")] == [
        "제외: 'four' 매핑이 뺀 라벨 'fear'", "제외: 한 라벨에 3표 미만", "제외: 화자 없음",
        "제외: a reason of a later version",
    ]  # fmt: skip
    english = dict(data_rows(card, load_phrases("en")))
    assert english["Labels from"] == policy
    assert english["Audio"] == "16000 Hz, 1 channel: 5, 44100 Hz, 2 channels: 4"
    assert {f"Left out: {reason}" for reason in left_out} < english.keys()


def reasons_in(node):
    """What the code of an adapter gives as a reason there."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return node.args[1:2] if name in ("leave_out", "Decision", "LeftOut") else []
    is_reason = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "reason"
    return [node.value] if is_reason else []


def notes_in(node):
    """What the code of an adapter notes there."""
    if isinstance(node, ast.Call):
        return node.args if getattr(node.func, "attr", "") == "note" else []
    return [node.value] if isinstance(node, ast.Yield) else []


def texts_of_adapters(find):
    """Texts in the code of the adapters, with a 3 in place of every value."""
    for file in Path(corpora.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for value in (value for node in ast.walk(tree) for value in find(node)):
            for each in [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]:
                if isinstance(each, ast.JoinedStr):
                    parts = (getattr(part, "value", "") for part in each.values)
                    yield "".join(part if isinstance(part, str) else "3" for part in parts)
                elif isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value:
                    yield each.value


def test_every_reason_why_adapters_leave_a_row_out_is_said_in_korean():
    """The reasons of the code itself, so that a new one there is noticed here."""
    t, found = load_phrases("ko"), set(texts_of_adapters(reasons_in))
    assert {"unreadable audio", "tie for first place", "fewer than 3 votes for one label"} <= found
    assert [reason for reason in found if t.said(reason, "reasons") == reason] == []


def test_every_note_of_an_adapter_is_said_in_korean():
    """The notes of the code itself; what a note is put together of is told apart below."""
    t = load_phrases("ko")
    found = {text for text in texts_of_adapters(notes_in) if text.endswith(".")}
    assert "3 rows have fewer than 3 votes." in found
    found.remove("All recordings are taken for 3, 3.")
    assert [note for note in found if t.said(note) == note] == []


def test_every_reason_of_a_shipped_mapping_is_said_in_korean():
    t = load_phrases("ko")
    reasons = {why for name in shipped_mappings() for why in read_mapping(name).drops.values()}
    assert [reason for reason in reasons if t.said(reason) == reason] == []


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
