"""Pages as a browser shows them, on a phone and on a wide screen, light and dark."""

import io
import re
import shutil

import pytest
from PIL import Image

from experiments.comparison import report
from experiments.pages.write import write_report
from tests.experiments.comparison.runs_by_hand import writer
from tests.experiments.pages.runs_by_hand import (
    read_page,
    write_comparison,
    write_search,
    write_train_run,
)

pytestmark = pytest.mark.slow

# How somebody sees color: contrast of WCAG 2.1, of an element's text and what is behind it.
CONTRAST = """element => {
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  let behind = element;
  while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) {
    behind = behind.parentElement;
  }
  const luminance = color => {
    const [r, g, b] = parse(color).slice(0, 3).map(value => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = behind ? getComputedStyle(behind).backgroundColor : "rgb(255, 255, 255)";
  const [low, high] = [luminance(getComputedStyle(element).color), luminance(back)].sort(
    (a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""
TEXTS = ("p.lead", ".result", ".certainty", ".note", "td", "thead th", "nav a", "figcaption")


@pytest.fixture(scope="module")
def browser():
    """Chromium, if the machine has one."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind."""
    path = tmp_path_factory.mktemp("pages")
    report.write_report(path, write_comparison(writer(path)))
    run = write_train_run(path / "run")
    search = write_search(
        path / "search", ["5.0,0.3,10,1.25,0.125,6.0,1", "20.0,1.0,20,1.5,0.25,5.0,1"]
    )
    return [path / "report.html", write_report([run]), write_report([search])]


def open_page(browser, path, *, width, scheme):
    """Opens a page; returns it and what it complained about or asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(path.as_uri())
    return page, heard


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1600])
def test_pages_fit_the_screen_and_ask_for_nothing(browser, pages, width, scheme):
    for path in pages:
        page, heard = open_page(browser, path, width=width, scheme=scheme)
        assert heard == [path.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") == width
        sizes = page.locator("figure svg").evaluate_all(
            "all => all.map(one => [one.getBoundingClientRect(), one.innerHTML.length])"
        )
        assert sizes
        for box, length in sizes:
            assert box["width"] > 250
            assert box["height"] > 100
            assert box["right"] <= width
            assert length > 1000
        for selector in TEXTS:
            for found in page.locator(selector).all()[:3]:
                assert found.evaluate(CONTRAST) >= 4.5, (path, selector)
        # What a picture draws in black follows the text.
        color = page.evaluate("getComputedStyle(document.body).color")
        texts = page.locator("figure svg text").first
        assert texts.evaluate("one => getComputedStyle(one).fill") == color
        page.context.close()


def test_a_table_of_six_figures_fits_a_laptop(browser, pages):
    page, _ = open_page(browser, pages[0], width=1280, scheme="light")
    box = page.get_by_role("region", name="Means over seeds")
    assert box.evaluate("one => one.scrollWidth <= one.clientWidth")
    # No arrow of a heading stands alone in a line.
    heights = box.locator("thead th").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert max(heights) < 60
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_goes_on_has_a_shadow_at_that_edge(browser, pages, scheme):
    page, _ = open_page(browser, pages[0], width=390, scheme=scheme)
    box = page.get_by_role("region", name="Means over seeds")
    box.scroll_into_view_if_needed()

    def is_shaded():
        """Whether the caption's right edge differs from the page, 30 pixels further left."""
        found = box.bounding_box()
        clip = {
            "x": found["x"] + found["width"] - 33,
            "y": found["y"] + 10,
            "width": 32,
            "height": 1,
        }
        strip = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("L")
        return abs(strip.getpixel((0, 0)) - strip.getpixel((29, 0))) > 5

    assert is_shaded()
    box.evaluate("one => one.scrollTo(one.scrollWidth, 0)")
    assert not is_shaded()
    page.context.close()


def test_a_press_sorts_a_table_by_size(browser, pages):
    page, heard = open_page(browser, pages[0], width=1600, scheme="light")
    table = page.locator("table").first
    heading = table.locator("thead th").filter(has_text=re.compile("^unseen_test RMSE$"))

    def algorithms():
        return table.locator("tbody tr th").all_text_contents()

    assert algorithms() == ["fed_recon", "fed_avg", "popularity"]
    assert heading.get_attribute("aria-sort") is None
    heading.get_by_role("button").click()
    assert algorithms() == ["fed_avg", "fed_recon", "popularity"]
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").press("Enter")
    assert algorithms() == ["popularity", "fed_recon", "fed_avg"]
    assert heading.get_attribute("aria-sort") == "descending"
    other = table.locator("thead th").filter(has_text=re.compile("^algorithm$"))
    other.get_by_role("button").focus()
    page.keyboard.press("Space")
    assert algorithms() == ["fed_avg", "fed_recon", "popularity"]
    assert heading.get_attribute("aria-sort") is None
    assert other.get_attribute("aria-sort") == "ascending"
    assert heard == [pages[0].as_uri()]
    page.context.close()


def test_numbers_sort_by_size_whatever_stands_around_them(browser, tmp_path):
    rows = [f"{ridge},0.3,10,{rmse},,5.0,1" for ridge, rmse in ((5, 9.5), (100, 10.25), (20, 12))]
    path = write_report([write_search(tmp_path / "search", rows)])
    assert read_page(path).tables["Trials, the best first"][1][1] == "5"
    page, _ = open_page(browser, path, width=1600, scheme="light")
    table = page.locator("table").first

    def column(place):
        return table.locator(f"tbody tr td:nth-child({place})").all_text_contents()

    for name, place, wanted in (
        ("ridge", 2, ["5", "20", "100"]),
        ("validation RMSE", 5, ["9.5000", "10.2500", "12.0000"]),
    ):
        button = table.get_by_role("button", name=name)
        button.click()
        assert column(place) == wanted
        button.click()
        assert column(place) == wanted[::-1]
    page.context.close()


def test_a_keyboard_reaches_the_content_and_sees_where_it_is(browser, pages):
    page, _ = open_page(browser, pages[0], width=390, scheme="dark")
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("one => one === document.activeElement")
    assert skip.bounding_box()["x"] >= 0
    assert skip.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    # A wide table scrolls in its own box.
    box = page.locator(".scroll").first
    assert box.evaluate("one => one.scrollWidth > one.clientWidth")
    page.context.close()
