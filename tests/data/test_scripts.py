"""Script clusters against a comparison of all pairs, and on invented Korean sentences."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from koser.data import scripts
from koser.data.scripts import cluster_scripts, has_script, largest_cluster
from koser.errors import ConfigError

# One script, said twice.
SAME = [
    ("어제 회의에서 부장님이 나를 무시했어.", "어제 회의에서 부장님이 나를 무시 했어!!"),
    ("정말? 네가 그 시험에 붙었다고?", "정말 네가 그 시험에 붙었다고..."),
    ("어제 회의에서 부장님이 나를 무시했어", "어제 회의에서 부장님이 나를 무시했어요"),
    ("어제 회의에서 부장님이 나를 무시했어", "어제 회의에서 부장님이 나를 무시했다니까"),
    ("친구가 내 생일을 잊어버려서 너무 서운해", "친구가 내 생일을 잊어버려서 너무 서운했어"),
    ("친구가 내 생일을 잊어버려서 너무 서운해", "친구는 내 생일도 잊어버려서 너무 서운해"),
    (
        "친구가 내 생일을 잊어버려서 너무 서운해",
        "아니 글쎄 친구가 내 생일을 잊어버려서 너무 서운해",
    ),
    ("강아지가 아파서 밤새 한숨도 못 잤어", "강아지가 아파서 밤새 진짜 한숨도 못 잤어"),
    ("강아지가 아파서 밤새 한숨도 못 잤어", "고양이가 아파서 밤새 한숨도 못 잤어"),
    ("지하철에서 지갑을 잃어버려서 앞이 캄캄해", "버스에서 지갑을 잃어버려서 앞이 캄캄해"),
    ("지하철에서 지갑을 잃어버려서 앞이 캄캄해", "버스에서 지갑을 잃어버려서 앞이 캄캄했어요"),
    (
        "할머니가 내일 수술을 받는데 잘못될까 봐 무서워",
        "할머니께서 내일 수술을 받으시는데 잘못될까 봐 무서워요",
    ),
    ("할머니가 내일 수술을 받는데 잘못될까 봐 무서워", "내일 수술을 받는데 잘못될까 봐 무서워"),
    (
        "내일 할머니가 수술을 받는데 잘못될까 봐 무서워",
        "할머니가 내일 수술을 받는데 잘못될까 봐 무서워",
    ),
    ("나 너무 무서워", "나 너무 무서워요"),
    ("깜짝이야 놀랐잖아", "깜짝이야 놀랐잖아요"),
    ("정말 화가 나", "아 정말 화가 나"),
    ("짜증 나", "짜증 나네"),
    ("윗집에서 밤마다 쿵쿵거려서 미치겠어", "윗집에서 밤마다 쿵쿵 거려서 미치겟어"),
    ("윗집에서 밤마다 쿵쿵거려서 미치겠어", "윗집이 밤마다 쿵쿵대서 미치겠어"),
    ("월급이 3백만 원이나 올라서 너무 기뻐", "월급이 2백만 원이나 올라서 너무 기뻐"),
]
# Two scripts on one template that differ in little more than a word: joined on purpose.
CLOSE = [
    ("정말 기분이 좋아", "정말 기분이 나빠"),
    ("오늘 진짜 기분이 좋다", "오늘 진짜 기분이 나쁘다"),
    ("이번 주말에 친구들이랑 바다에 가기로 했어", "이번 주말에 친구들이랑 영화를 보기로 했어"),
    ("왜 나한테만 그래", "왜 나한테만 시켜"),
    ("어떻게 나한테 그런 말을 할 수가 있어", "어떻게 나한테 이런 짓을 할 수가 있어"),
]
# Two scripts on one template, or none.
DIFFERENT = [
    ("친구가 내 생일을 잊어버려서 너무 서운해", "동생이 내 지갑을 잃어버려서 너무 속상해"),
    (
        "할머니가 내일 수술을 받는데 잘못될까 봐 무서워",
        "동생이 오늘 면접을 보는데 떨어질까 봐 무서워",
    ),
    ("어제 회의에서 부장님이 나를 무시했어", "어제 식당에서 직원이 나를 무시했어"),
    ("오늘 시험을 망쳐서 너무 슬퍼", "오늘 약속을 어겨서 너무 미안해"),
    ("오늘 시험을 망쳐서 너무 슬퍼", "오늘 경기를 져서 너무 슬퍼"),
    ("나 너무 무서워", "나 너무 외로워"),
    ("정말 화가 나", "정말 신이 나"),
    ("이번 주말에 친구들이랑 바다에 가기로 했어", "이번 방학에 가족들이랑 제주도에 가기로 했어"),
    ("저 사람 정말 싫어", "저 음식 정말 싫어"),
    ("Birds are singing by the lake", "Frogs are jumping by the lake"),
    ("강아지가 아파서 밤새 한숨도 못 잤어", "월급이 3백만 원이나 올라서 너무 기뻐"),
]

RANDOM_TEXTS = st.lists(
    st.none() | st.text(alphabet="가각나 .aA", max_size=12), min_size=1, max_size=30
)


def all_pairs(texts: list[str | None], threshold: float) -> np.ndarray:
    """The clusters by definition: compare all pairs, link, take connected components."""

    def shingles(text: str | None) -> set[str]:
        spoken = [c for c in unicodedata.normalize("NFC", text or "").lower() if c.isalnum()]
        jamo = unicodedata.normalize("NFD", "".join(spoken))
        return {jamo[i : i + 4] for i in range(max(len(jamo) - 3, 1))} - {""}

    sets = [shingles(text) for text in texts]
    links = [
        (i, j)
        for i, a in enumerate(sets)
        for j, b in enumerate(sets)
        if a and b and len(a & b) >= threshold * len(a | b) - 1e-9
    ]
    i, j = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(len(texts), len(texts)))
    return connected_components(graph)[1]


def partition(clusters: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(clusters == c).tolist()) for c in np.unique(clusters)}


def similar_texts(seed: int, n_texts: int = 250) -> list[str]:
    """Sentences from few words, so that all similarities occur, many at the threshold."""
    rng = np.random.default_rng(seed)
    words = [
        "오늘",
        "내가",
        "너무",
        "친구",
        "회사",
        "무서워",
        "기뻐",
        "했어",
        "3번",
        "정말",
        "Kids",
    ]
    return [" ".join(rng.choice(words, size=rng.integers(1, 7))) for _ in range(n_texts)]


@pytest.mark.parametrize(
    ("threshold", "n_texts"), [(0.2, 12), (0.35, 30), (0.5, 60), (0.6, 250), (0.75, 250), (1, 250)]
)
@pytest.mark.parametrize("seed", range(4))
def test_clusters_are_the_components_of_all_pairs(seed, threshold, n_texts):
    texts = similar_texts(seed, n_texts)
    expected = partition(all_pairs(texts, threshold))
    assert 1 < len(expected) < n_texts  # or there was nothing to find
    assert partition(cluster_scripts(texts, threshold=threshold)) == expected


@given(RANDOM_TEXTS, st.sampled_from([1 / 3, 0.5, 2 / 3, 0.9]))
def test_clusters_of_any_texts_are_the_components_of_all_pairs(texts, threshold):
    clusters = cluster_scripts(texts, threshold=threshold)
    assert partition(clusters) == partition(all_pairs(texts, threshold))


@pytest.mark.parametrize(("threshold", "size"), [(0.1, 20), (0.28, 25), (0.56, 25), (0.6, 20)])
def test_a_part_of_a_text_at_exactly_the_threshold_is_found(threshold, size):
    # 0.56 · 25 is 14.000000000000002: a rounding error must not lose the pair
    long = "".join(chr(0x4E00 + i) for i in range(size + 3))
    part = long[: round(size * threshold) + 3]
    assert cluster_scripts([long, part], threshold=threshold).tolist() == [0, 0]
    assert cluster_scripts([long, part[:-1]], threshold=threshold).tolist() == [0, 1]


def test_batches_do_not_change_the_clusters(monkeypatch):
    texts = similar_texts(seed=1)
    whole = cluster_scripts(texts)
    monkeypatch.setattr(scripts, "_CANDIDATES_AT_ONCE", 7)
    monkeypatch.setattr(scripts, "_VERIFIED_AT_ONCE", 2)
    assert cluster_scripts(texts).tolist() == whole.tolist()


def test_clusters_do_not_depend_on_the_order_of_the_texts():
    texts = similar_texts(seed=2)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = np.empty(len(texts), dtype=int)
    shuffled[order] = cluster_scripts([texts[i] for i in order])
    assert partition(shuffled) == partition(cluster_scripts(texts))


def test_clusters_are_numbered_in_order_of_appearance():
    clusters = cluster_scripts(similar_texts(seed=3))
    _, first = np.unique(clusters, return_index=True)
    assert (np.diff(first) > 0).all()
    assert clusters[0] == 0


@pytest.mark.parametrize(("a", "b"), SAME + CLOSE)
def test_one_script_said_twice_is_one_cluster(a, b):
    assert cluster_scripts([a, b]).tolist() == [0, 0]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_sentences_on_one_template_are_two_clusters(a, b):
    assert cluster_scripts([a, b]).tolist() == [0, 1]


def test_a_higher_threshold_trades_as_documented():
    def n_joined(pairs):
        return sum(len(set(cluster_scripts(pair, threshold=0.6))) == 1 for pair in pairs)

    assert (n_joined(SAME), n_joined(CLOSE), n_joined(DIFFERENT)) == (19, 0, 0)


def test_a_chain_is_one_cluster_although_its_ends_are_unlike():
    chain = ["가나다라마바사아", "나다라마바사아자", "다라마바사아자차", "마바사아자차카타"]
    assert cluster_scripts(chain).tolist() == [0, 0, 0, 0]
    assert cluster_scripts([chain[0], chain[3]]).tolist() == [0, 1]


def test_spelling_case_and_unicode_form_do_not_make_another_script():
    text = "오늘 Kids, 3번 봤어."
    forms = [text, unicodedata.normalize("NFD", text), text.upper(), "오늘kids3번봤어"]
    assert cluster_scripts(forms, threshold=1.0).tolist() == [0, 0, 0, 0]


def test_every_unknown_text_is_a_cluster_of_its_own():
    texts = [None, "", " …!", None, "네", "네"]
    assert cluster_scripts(texts).tolist() == [0, 1, 2, 3, 4, 4]
    assert [has_script(text) for text in texts] == [False] * 4 + [True] * 2


def test_no_texts_make_no_clusters():
    assert cluster_scripts([]).tolist() == []
    assert largest_cluster(cluster_scripts([])) == 0


def test_the_largest_cluster_is_reported():
    assert largest_cluster(cluster_scripts(["가 나", "다 라", "가나", "가나!"])) == 3


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01])
def test_a_threshold_outside_its_range_is_refused(threshold):
    with pytest.raises(ConfigError, match=f"threshold = {threshold} is not in"):
        cluster_scripts(["가"], threshold=threshold)


@pytest.mark.parametrize(
    "texts",
    [
        ["같은 문장을 만 번 읽었다"] * 5_000,
        [f"이 문장의 번호는 {i}번입니다" for i in range(5_000)],
        [f"부장님 때문에 {chr(0xAC00 + i)}{chr(0xD000 - i)}{i}" for i in range(5_000)],
    ],
    ids=["one text", "one cluster", "one template"],
)
def test_repetition_does_not_cost_all_pairs(texts, monkeypatch):
    n_batches = 0
    candidates = scripts._candidates

    def counting(*arguments):
        nonlocal n_batches
        for batch in candidates(*arguments):
            n_batches += 1
            yield batch

    monkeypatch.setattr(scripts, "_candidates", counting)
    monkeypatch.setattr(scripts, "_CANDIDATES_AT_ONCE", 10_000)
    cluster_scripts(texts)
    n_pairs = len(texts) * (len(texts) - 1) / 2
    assert n_batches * 10_000 < 0.05 * n_pairs
