"""The web page in a real Chromium, with a microphone that plays a file."""

import json
import re
from itertools import pairwise

import pytest

from fixtures.servers import running
from koser.inference.timeline import make_timeline
from koser.labels import KOREAN
from koser.serving.gate import Keys

pytestmark = pytest.mark.browser

KEY = "0123456789abcdef0123456789abcdef"


def table_of(page):
    return [
        [cell.strip() for cell in row.locator("td:not(.why)").all_inner_texts()]
        for row in page.locator("#segments tbody tr").all()
    ]


def clock(seconds):
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def rows_of(segments):
    return [
        [clock(each.start), clock(each.end), each.label, f"{100 * each.confidence:.0f} %"]
        for each in segments
    ]


def test_a_chosen_file_becomes_a_timeline(open_page, served, recognizer, speech):
    page = open_page()
    page.set_input_files("#file", speech)
    page.locator("#segments tbody tr").first.wait_for()
    expected = make_timeline(recognizer, speech)
    assert len(expected.segments) >= 3
    assert table_of(page) == rows_of(expected.segments)
    assert page.locator("#status").inner_text() == f"Done: {expected.duration:.1f} s of sound."
    assert page.locator("#bars li").count() == len(recognizer.labels)
    shown = [
        float(each)
        for each in page.locator("#bars progress").evaluate_all("all => all.map(e => e.value)")
    ]
    assert sum(shown) == pytest.approx(1, abs=1e-6)
    assert page.locator("h2#result-title").evaluate("e => e === document.activeElement")
    assert all(url.startswith((served.url, "blob:")) for url in page.hosts)


@pytest.mark.parametrize("locale", ["en-GB", "ko-KR"])
def test_a_phone_shows_every_column_of_the_table(open_page, speech, locale):
    page = open_page(locale=locale, viewport={"width": 360, "height": 740})
    page.set_input_files("#file", speech)
    page.locator("#segments tbody tr").first.wait_for()
    wide = "e => e.scrollWidth - e.clientWidth"
    assert page.locator(".table-frame").evaluate(wide) == 0
    assert page.locator("html").evaluate(wide) == 0
    edges = page.locator("#segments thead th").evaluate_all(
        "all => all.map(e => [e.getBoundingClientRect().left, e.getBoundingClientRect().right])"
    )
    assert len(edges) == 5
    assert all(here[1] <= after[0] + 0.5 for here, after in pairwise(edges))


def test_a_file_is_dropped(open_page, recognizer, speech):
    page = open_page()
    content = list(speech.read_bytes())
    transfer = page.evaluate_handle(
        "bytes => { const t = new DataTransfer();"
        "t.items.add(new File([new Uint8Array(bytes)], 'dropped.wav')); return t; }",
        content,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.locator("#segments tbody tr").first.wait_for()
    assert table_of(page) == rows_of(make_timeline(recognizer, speech).segments)


def test_the_picture_has_the_waveform_and_every_curve(open_page, speech):
    page = open_page()
    page.set_input_files("#file", speech)
    page.locator("#segments tbody tr").first.wait_for()
    page.wait_for_timeout(100)  # a frame of animation
    n_colors = page.locator("#timeline").evaluate(
        "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const seen = new Set(); for (let i = 0; i < d.length; i += 4)"
        "if (d[i + 3] > 250) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size; }"
    )
    assert n_colors > 5
    legend = page.locator("#legend line").evaluate_all(
        "all => all.map(e => e.getAttribute('stroke'))"
    )
    assert len(set(legend)) == 3
    label = page.locator("#timeline").get_attribute("aria-label")
    assert re.search(r"Waveform of [\d.]+ s .* \d+ segments", label)


def test_the_microphone_gives_results_while_one_speaks(open_page, recognizer, speech):
    page = open_page(permissions=["microphone"])
    page.get_by_role("button", name="Start microphone").click()
    # Before it is over: a partial result.
    page.locator("#bars li").first.wait_for()
    assert (
        page.get_by_role("button", name="Stop microphone").get_attribute("aria-pressed") == "true"
    )
    page.locator("#segments tbody tr").nth(2).wait_for(timeout=30_000)
    page.get_by_role("button", name="Stop microphone").click()
    page.get_by_role("button", name="JSON").wait_for()
    rows = table_of(page)
    expected = make_timeline(recognizer, speech).segments
    # The browser resamples, and starts somewhere in the file: lengths agree, times shift.
    lengths = [seconds(row[1]) - seconds(row[0]) for row in rows[1:-1]]
    whole = [each.duration for each in expected]
    for length in lengths:
        assert min(abs(length - other) for other in whole) < 0.35, (rows, whole)
    assert page.locator("#problem").is_hidden()


def seconds(text):
    minutes, rest = text.split(":")
    return 60 * int(minutes) + float(rest)


@pytest.mark.parametrize("format", ["JSON", "CSV", "SRT", "WebVTT", "TextGrid", "Audacity", "RTTM"])
def test_results_are_downloaded(open_page, recognizer, speech, format, tmp_path):
    page = open_page()
    page.set_input_files("#file", speech)
    button = page.get_by_role("button", name=format, exact=True)
    with page.expect_download() as waiting:
        button.click()
    assert waiting.value.suggested_filename.startswith("상담 1.")
    waiting.value.save_as(tmp_path / "result")
    content = (tmp_path / "result").read_text(encoding="utf-8")
    segments = make_timeline(recognizer, speech).segments
    if format == "JSON":
        assert len(json.loads(content)["segments"]) == len(segments)
    elif format == "CSV":
        header, *rows = content.splitlines()
        assert header == "start,end,label,confidence,angry,neutral,calm"
        assert [row.split(",")[2] for row in rows] == [each.label for each in segments]
    else:
        assert sum(content.count(label) for label in recognizer.labels) >= len(segments)


def test_korean_and_english_are_switched_and_remembered(open_page, recognizer, speech):
    labels = [each.label for each in make_timeline(recognizer, speech).segments]
    page = open_page(locale="ko-KR")
    assert page.locator("html").get_attribute("lang") == "ko"
    page.set_input_files("#file", speech)
    page.locator("#segments tbody tr").first.wait_for()
    korean = page.locator("body").inner_text()
    assert "음성 넣기" in korean
    assert [row[2] for row in table_of(page)] == [KOREAN[each] for each in labels]
    page.get_by_role("button", name="English").click()
    assert page.locator("html").get_attribute("lang") == "en"
    assert not re.search("[가-힣]", page.locator("main").inner_text())
    assert [row[2] for row in table_of(page)] == labels
    page.reload()
    assert page.locator("html").get_attribute("lang") == "en"


def test_a_file_that_is_no_sound_is_explained(open_page):
    page = open_page(allowed=["422"])
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"no sound"})
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "is not audio" in alert.inner_text()
    assert page.locator("#file").is_enabled()
    assert page.locator("#result").is_hidden()


def test_a_problem_is_told_in_korean_before_the_servers_own_words(open_page):
    page = open_page(locale="ko-KR", allowed=["422"])
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"no sound"})
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("음성으로 읽을 수 없는 파일입니다.")
    assert "is not audio" in alert.inner_text()


def test_the_keyboard_reaches_everything_in_order(open_page, speech):
    page = open_page()
    page.set_input_files("#file", speech)
    page.locator("#segments tbody tr").first.wait_for()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(() => { const e = document.activeElement;"
                "return e.id || e.textContent.trim() || e.tagName })()"
            )
        )
    first = reached.index("Skip to the content")  # the focus was on the result
    reached = reached[first:] + reached[:first]
    order = ["Skip to the content", "language", "file", "record", "player"]
    places = [reached.index(each) for each in order]
    assert places == sorted(places)
    assert "JSON" in reached
    outline = page.locator("#language").evaluate(
        "e => { e.focus({ focusVisible: true }); return getComputedStyle(e).outlineStyle }"
    )
    assert outline == "solid"


def test_names_and_live_regions_are_there_for_a_screen_reader(open_page, speech):
    page = open_page()
    assert page.get_by_role("status").get_attribute("aria-live") == "polite"
    page.get_by_label("Drop a file, or press to choose one").wait_for(state="attached")
    page.set_input_files("#file", speech)
    page.get_by_role("table", name="Segments of emotion").wait_for()
    assert page.get_by_role("progressbar", name="angry").count() == 1
    assert page.get_by_role("group", name="Download").count() == 1
    assert page.get_by_role("region", name="Segments of emotion").count() == 1
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, canvas')].filter(e => e.offsetParent"
        " && !e.textContent.trim() && !e.labels?.length && !e.ariaLabel).length"
    )
    assert nameless == 0


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["ko-KR", "en-GB"])
def test_nothing_overflows_at_phone_width(open_page, speech, width, scheme, locale):
    page = open_page(viewport={"width": width, "height": 700}, color_scheme=scheme, locale=locale)
    page.set_input_files("#file", speech)
    page.locator("#segments tbody tr").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        "[...document.querySelectorAll('header button, .microphone button, #downloads button')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 36).length"
    )
    assert small == 0


def luminance(color):
    parts = [int(each) / 255 for each in re.findall(r"\d+", color)[:3]]
    linear = [
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page, speech, scheme):
    """WCAG 2.2, criterion 1.4.3: 4.5 to 1."""
    page = open_page(color_scheme=scheme)
    page.set_input_files("#file", speech)
    page.locator("#segments tbody tr").first.wait_for()
    page.wait_for_timeout(300)  # the transition of buttons
    pairs = page.evaluate(
        "[...document.querySelectorAll('p, h1, h2, h3, td, th, button, label span, li span')]"
        ".filter(e => e.offsetParent && e.textContent.trim()).map(e => { let g = e;"
        "while (g && getComputedStyle(g).backgroundColor === 'rgba(0, 0, 0, 0)')"
        " g = g.parentElement;"
        "return [e.textContent.trim().slice(0, 30), getComputedStyle(e).color,"
        " getComputedStyle(g ?? document.body).backgroundColor] })"
    )
    assert len(pairs) > 20
    for text, ink, ground in pairs:
        light, dark = sorted([luminance(ink), luminance(ground)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ink, ground)


def test_a_server_with_keys_asks_for_one(open_page, model, speech):
    with running(model, keys=Keys([KEY])) as guarded:
        page = open_page(url=guarded.url, allowed=["401"], permissions=["microphone"])
        page.get_by_label("API key").fill("wrong-key-of-some-length")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        page.get_by_text("up to 60 minutes").wait_for()
        page.set_input_files("#file", speech)
        page.locator("#segments tbody tr").first.wait_for()
        # The stream takes the key too.
        page.get_by_role("button", name="Start microphone").click()
        page.locator("#segments tbody tr").first.wait_for()
        page.get_by_role("button", name="Stop microphone").click()
        page.get_by_role("button", name="JSON").wait_for()
        page.context.close()
