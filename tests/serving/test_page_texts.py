"""What the web page says of labels is what reports say of them."""

import re

from koser.labels import KOREAN
from koser.serving.pages import read_page


def test_every_label_that_has_a_korean_name_has_it_on_the_page_too():
    script = read_page()["texts.js"].content.decode()
    block = re.search(r"const LABELS = {(.*?)};", script, re.DOTALL)[1]
    names = {label: (korean, english) for label, korean, english in re.findall(
        r'(\w+): \["(.*?)", "(.*?)"\]', block
    )}  # fmt: skip
    assert names == {label: (korean, label) for label, korean in KOREAN.items()}
