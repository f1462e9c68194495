"""The page's explanations, in a real Chromium."""

import re
import time

import numpy as np
import pytest
import soundfile

from fixtures.recognizers import LoudnessModel, WordsModel
from fixtures.servers import running, wait_until
from koser.audio.reading import SAMPLING_RATE, load
from koser.inference.explanation import explain
from koser.inference.recognizer import Recognizer
from koser.inference.timeline import make_timeline

pytestmark = pytest.mark.browser

COLOURS = {"light": ("#0072b2", "#c8500a"), "dark": ("#6cc0f5", "#ff9a4d")}


@pytest.fixture(scope="module")
def served():
    """A server whose answers rest on how loud it is, so that there is something to tell."""
    with running(LoudnessModel()) as server:
        yield server


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer(LoudnessModel())


def explained(page, speech, *, place=1, **options):
    """Choose the file, and ask about one of its segments."""
    page.set_input_files("#file", speech)
    page.locator("#segments button.why").nth(place).click(**options)
    page.locator("#why").wait_for()
    page.wait_for_timeout(100)  # a frame of animation


def part_of(speech, segment):
    return load(speech)[round(segment.start * SAMPLING_RATE) : round(segment.end * SAMPLING_RATE)]


def clock(seconds):
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def test_a_segment_is_explained_in_words_and_in_its_picture(open_page, recognizer, speech):
    page = open_page()
    explained(page, speech)
    segment = make_timeline(recognizer, speech).segments[1]
    expected = explain(recognizer, part_of(speech, segment))
    title = page.get_by_role("heading", name=re.compile("^Why, "))
    assert title.inner_text() == f"Why, {clock(segment.start)} to {clock(segment.end)}"
    assert title.evaluate("e => e === document.activeElement")
    best = expected.prediction
    summary = page.locator("#why-summary").inner_text()
    assert f"{best.best}, {100 * best.confidence:.0f} %" in summary
    # The strongest moment is the first that is told, with its time and its worth.
    strongest = max(expected.cells, key=lambda cell: abs(cell.evidence))
    told = page.locator("#why-moments li").first.inner_text()
    start, end, way, label, worth = re.match(
        r"(\S+) to (\S+) speaks (for|against) (\w+): ([+−][\d.]+)", told
    ).groups()
    assert seconds(start) - 0.06 <= segment.start + strongest.start
    assert segment.start + strongest.end <= seconds(end) + 0.06
    assert way == ("against" if strongest.evidence < 0 else "for")
    assert label == best.best
    assert float(worth.replace("−", "-")) == pytest.approx(strongest.evidence, abs=0.006)
    assert page.locator("#why-words li").count() == 0
    label = page.locator("#timeline").get_attribute("aria-label")
    assert clock(segment.start) in label
    assert "in words below" in label


def seconds(text):
    minutes, rest = text.split(":")
    return 60 * int(minutes) + float(rest)


def heights(page, colour):
    """Of each column of the picture, how many pixels above and below the axis have a colour."""
    return page.locator("#timeline").evaluate(
        """(canvas, [r, g, b]) => {
            const { width, height } = canvas;
            const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
            return Array.from({ length: width }, (_, x) => {
                const ys = [];
                for (let y = 0; y < 0.53 * height; y += 1) {
                    const i = 4 * (y * width + x);
                    const distance = Math.hypot(data[i] - r, data[i + 1] - g, data[i + 2] - b);
                    if (distance < 60) ys.push(y);
                }
                return ys.length ? [Math.min(...ys), Math.max(...ys)] : null;
            });
        }""",
        [int(colour[i : i + 2], 16) for i in (1, 3, 5)],
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_rise_for_the_label_and_fall_against_it(open_page, recognizer, speech, scheme):
    page = open_page(color_scheme=scheme, device_scale_factor=1)
    explained(page, speech, place=0)
    segment = make_timeline(recognizer, speech).segments[0]
    cells = explain(recognizer, part_of(speech, segment)).cells
    scale = max(0.1, *(abs(cell.evidence) for cell in cells))
    box = page.locator("#timeline").bounding_box()
    left, right = 48, box["width"] - 8
    rising, falling = (heights(page, colour) for colour in COLOURS[scheme])
    n_seen = 0
    for cell in cells:
        if abs(cell.evidence) < 0.2 * scale:
            continue
        middle = (cell.start + cell.end) / 2 / segment.duration
        column = round(left + middle * (right - left))
        found, other = (rising, falling) if cell.evidence > 0 else (falling, rising)
        assert found[column] is not None, cell
        top, bottom = found[column]
        n_seen += 1
        assert other[column] is None, cell
        reach = 0.6 * (box["height"] - 30) / 2  # of the largest bar, roughly
        assert bottom - top == pytest.approx(abs(cell.evidence) / scale * reach, abs=8)
    assert n_seen > 3


def test_the_whole_of_a_short_file_is_explained(open_page, recognizer, speech):
    page = open_page()
    page.set_input_files("#file", speech)
    page.get_by_role("button", name="Why, as a whole?").click()
    page.locator("#why").wait_for()
    whole = recognizer.predict_file(speech)
    title = page.locator("#why-title").inner_text()
    assert title == f"Why, 0:00.0 to {clock(whole.duration)}"
    assert f"{100 * whole.confidence:.0f} %" in page.locator("#why-summary").inner_text()


def test_a_long_file_is_explained_only_in_parts(open_page, speech, tmp_path):
    sound = np.tile(load(speech), 3)
    assert len(sound) > 31 * SAMPLING_RATE
    soundfile.write(tmp_path / "long.wav", sound, SAMPLING_RATE, "PCM_16")
    page = open_page()
    explained(page, tmp_path / "long.wav")
    assert page.get_by_role("button", name="Why, as a whole?").count() == 0


def test_the_keyboard_asks_and_comes_back_to_where_it_asked(open_page, speech):
    page = open_page()
    page.set_input_files("#file", speech)
    button = page.locator("#segments button.why").nth(1)
    button.focus()
    name = button.get_attribute("aria-label")
    assert re.fullmatch(r"Why\? \d:\d\d\.\d to \d:\d\d\.\d", name)
    page.keyboard.press("Enter")
    page.locator("#why").wait_for()
    before = page.locator("#timeline").get_attribute("aria-label")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "why-close"
    page.keyboard.press("Enter")
    assert page.locator("#why").is_hidden()
    assert page.evaluate("document.activeElement.ariaLabel") == name
    assert page.locator("#timeline").get_attribute("aria-label") != before


def test_words_carry_their_evidence(open_page, speech):
    with running(WordsModel(loudness=400)) as reading:
        page = open_page(url=reading.url, locale="ko-KR")
        page.set_input_files("#file", speech)
        page.locator("#segments button.why").first.click()
        page.locator("#why").wait_for()
        words = page.locator("#why-words li")
        texts = [each.split() for each in words.all_inner_texts()]
        assert texts == [["정말", "+0.50"], ["화나", "+2.00"], ["좋아", "−1.00"], ["오늘", "0.00"]]
        lines = words.evaluate_all(
            "all => all.map(e => [getComputedStyle(e).borderBottomStyle,"
            " parseFloat(getComputedStyle(e).borderBottomWidth)])"
        )
        assert [style for style, _ in lines] == ["solid", "solid", "dashed", "solid"]
        widths = [width for _, width in lines]
        assert widths[1] > widths[2] > widths[0] > widths[3], widths
        assert page.get_by_role("list", name="받아쓴 말과 낱말마다의 근거").count() == 1
        page.get_by_role("button", name="English").click()
        assert page.get_by_role("heading", name=re.compile("^Why, ")).count() == 1
        left = page.locator("main").inner_text().replace("정말", "").replace("화나", "")
        assert not re.search("[가-힣]", left.replace("좋아", "").replace("오늘", ""))
        page.context.close()


def test_who_no_longer_waits_stops_it(open_page, serve, speech):
    def slow(service):
        predict = service.model._predict

        def predict_slowly(waveforms):
            time.sleep(0.3)
            return predict(waveforms)

        service.model._predict = predict_slowly

    with serve(prepare=slow) as server:
        page = open_page(url=server.url)
        page.set_input_files("#file", speech)
        buttons = page.locator("#segments button.why")
        buttons.nth(0).click()
        stop = page.get_by_role("button", name=re.compile("^Stop "))
        stop.wait_for()
        wait_until(lambda: server.service.n_explanations == 1)
        assert "Looking for" in page.get_by_role("status").inner_text()
        assert stop.evaluate("e => e === document.activeElement")
        # Another one takes its place, and is ended itself.
        buttons.nth(1).click()
        assert page.get_by_role("button", name=re.compile("^Stop ")).count() == 1
        stop.click()
        wait_until(lambda: server.service.n_explanations == 0)
        assert page.get_by_role("button", name=re.compile("^Stop ")).count() == 0
        assert page.locator("#problem").is_hidden()
        assert page.locator("#why").is_hidden()
        page.context.close()


def test_a_refusal_is_shown_as_others_are(open_page, serve, speech):
    with serve(explain_timeout=0.001) as server:
        page = open_page(url=server.url, allowed=["504"])
        page.set_input_files("#file", speech)
        page.locator("#segments button.why").first.click()
        page.get_by_role("alert").wait_for()
        assert "took longer than 0.001 s" in page.get_by_role("alert").inner_text()
        assert page.get_by_role("alert").evaluate(
            "e => { const { top, bottom } = e.getBoundingClientRect();"
            " return top >= 0 && bottom <= innerHeight }"
        )
        assert page.get_by_role("button", name=re.compile("^Stop ")).count() == 0
        page.context.close()


def test_what_the_microphone_heard_has_no_button(open_page, speech):
    page = open_page(permissions=["microphone"])
    explained(page, speech)
    page.get_by_role("button", name="Start microphone").click()
    page.get_by_role("button", name="Stop microphone").wait_for()
    page.locator("#segments tbody tr").first.wait_for(timeout=30_000)
    page.get_by_role("button", name="Stop microphone").click()
    page.get_by_role("button", name="JSON").wait_for()
    assert page.locator("#segments tbody tr").count() >= 1
    assert page.locator("button.why:visible, #why:visible, #why-column:visible").count() == 0


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize("locale", ["ko-KR", "en-GB"])
def test_at_phone_width_nothing_overflows_and_the_buttons_are_in_sight(
    open_page, speech, width, locale
):
    page = open_page(viewport={"width": width, "height": 700}, locale=locale)
    explained(page, speech)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#segments button.why").first.bounding_box()
    assert box["x"] + box["width"] <= width
    picture = page.locator("#timeline").bounding_box()
    title = page.locator("#why-title").bounding_box()
    assert picture["y"] > -picture["height"] / 2, "the picture is out of sight"
    assert title["y"] + title["height"] <= 700


def strongest_by_hand(evidence):
    """The moments that `evidence.js` tells, in another way of writing them."""
    left = dict(enumerate(evidence))
    moments = []
    bound = max(0.05, 0.25 * max((abs(each) for each in evidence), default=0))
    while left and len(moments) < 3:
        peak = min(left, key=lambda place: (-abs(left[place]), place))
        worth = left[peak]
        if abs(worth) < bound:
            break
        run = [peak]
        for step in (-1, 1):
            place = peak + step
            while place in left and left[place] / worth >= 0.5:
                run.append(place)
                place += step
        moments.append((min(run), max(run) + 1, worth))
        for place in range(min(run) - 2, max(run) + 3):
            left.pop(place, None)
    return moments


def test_the_strongest_moments_are_few_and_apart(open_page):
    page = open_page()
    rng = np.random.default_rng(0)
    cases = [[], [0.01, -0.04], [0.0] * 5, [1.0], [-1.0, 0.9, 1.0]]
    cases += [np.round(rng.normal(size=n), 3).tolist() for n in range(1, 60)]
    found = page.evaluate(
        """async (cases) => {
            const { strongest } = await import("/page/evidence.js");
            return cases.map((all) => strongest(all.map((evidence, i) =>
                ({ start: i, end: i + 1, evidence }))));
        }""",
        cases,
    )
    for evidence, moments in zip(cases, found, strict=True):
        told = [(each["start"], each["end"], each["evidence"]) for each in moments]
        assert told == strongest_by_hand(evidence), evidence
