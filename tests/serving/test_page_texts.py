"""What the web page says of labels is what reports say of them."""

import re

from koser.labels import KOREAN
from koser.serving.pages import read_page
from koser.serving.problems import KINDS


def test_every_label_that_has_a_korean_name_has_it_on_the_page_too():
    script = read_page()["texts.js"].content.decode()
    block = re.search(r"const LABELS = {(.*?)};", script, re.DOTALL)[1]
    names = {label: (korean, english) for label, korean, english in re.findall(
        r'(\w+): \["(.*?)", "(.*?)"\]', block
    )}  # fmt: skip
    assert names == {label: (korean, label) for label, korean in KOREAN.items()}


def test_every_kind_of_problem_has_a_korean_sentence():
    script = read_page()["texts.js"].content.decode()
    block = re.search(r"const PROBLEMS = {(.*?)\n};", script, re.DOTALL)[1]
    sentences = dict(re.findall(r'"(.*?)": "(.*?)"', block))
    assert sentences.keys() == KINDS.keys()
    assert all(re.search("[가-힣].*\\.$", each) for each in sentences.values())
