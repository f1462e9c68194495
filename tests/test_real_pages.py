"""Reports and comparisons in a real browser: nothing is asked of any network, nothing overflows."""

import shutil

import pytest

from fixtures.runs import write_run
from koser.reporting.comparison import compare_runs
from koser.reporting.comparison_page import write_comparison
from koser.reporting.report import ReportOptions, write_report

pytestmark = pytest.mark.integration

# What Chromium itself would ask of the network.
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
PHONE, DESKTOP = (390, 844), (1100, 900)
# Relative luminance and contrast ratio of WCAG 2.2, for text on the page's own ground.
CONTRAST = """() => {
  const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const luminance = colour => rgb(colour).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const texts = [...document.querySelectorAll('p, h1, h2, h3, th, a, caption, .badge, li')];
  return Math.min(...texts.map(element => {
    const ink = luminance(getComputedStyle(element).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  }));
}"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    assert path, "No Chromium on the path. Install it: apt-get install chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report and a comparison in both languages."""
    root = tmp_path_factory.mktemp("pages")
    runs = [write_run(root / f"run{seed}", seed=seed) for seed in range(3)]
    found = []
    for language in ("ko", "en"):
        found.append(write_report(runs[0], ReportOptions(language), path=root / f"{language}.html"))
        found.append(root / f"comparison-{language}.html")
        write_comparison(compare_runs(runs), found[-1], language=language)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_pages_load_nothing_fit_and_can_be_read(browser, pages, scheme, size):
    for path in pages:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        asked, said = [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.evaluate(CONTRAST) >= 4.5, (path, scheme)
        page.close()


def test_a_printed_page_is_black_on_white_whatever_the_screen_was(browser, pages):
    page = browser.new_page(color_scheme="dark")
    page.goto(pages[0].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    colours = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert colours == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert len(page.pdf()) > 10_000
    page.close()
