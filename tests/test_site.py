"""The documentation site: its links, and its pages in a real browser.

The tests skip where `make docs` has not built the site, and those in a browser also where Chromium
or its driver is missing (Debian's packages are `chromium` and `chromium-driver`). Screenshots go to
docs/_build/screenshots.
"""

from __future__ import annotations

import functools
import shutil
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest

SITE = Path(__file__).parents[1] / "docs" / "_build" / "html"
SCREENSHOTS = SITE.parent / "screenshots"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="run `make docs` first"),
]

#: Width and height in CSS pixels: a phone and a desktop.
SIZES = {"phone": (390, 844), "desktop": (1440, 900)}


class Page(HTMLParser):
    """The links, sources and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        self.links += [part.split()[0] for part in (values.get("srcset") or "").split(",") if part]


@functools.cache
def parsed(path):
    return Page(path)


def pages():
    """The pages of the site; Sphinx' own indices of source code and the like are left out."""
    return sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)


def broken_links(path):
    """Return the links of a page that lead nowhere within the site."""
    broken = []
    for link in parsed(path).links:
        if urlparse(link).scheme:
            continue
        target, anchor = urldefrag(link)
        file = path.parent / unquote(urlparse(target).path) if target else path
        file = file / "index.html" if file.is_dir() else file
        if not file.exists() or (
            file.suffix == ".html" and unquote(anchor) not in parsed(file.resolve()).anchors
        ):
            broken.append(link)
    return broken


def test_no_link_is_broken():
    found = {str(path.relative_to(SITE)): broken_links(path.resolve()) for path in pages()}
    assert {path: links for path, links in found.items() if links} == {}
    assert len(found) > 60


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "there.html").write_text('<p id="here">')
    page = tmp_path / "page.html"
    page.write_text('<a href="there.html#here"><a href="there.html#no"><img src="none.png">')
    assert broken_links(page) == ["there.html#no", "none.png"]


def test_external_links_are_encrypted_and_name_no_machine():
    for path in pages():
        for link in parsed(path.resolve()).links:
            scheme = urlparse(link).scheme
            assert scheme in ("", "https", "mailto", "data"), (path, link)
            assert "localhost" not in link
            assert not link.startswith("/"), (path, link)


@pytest.fixture(scope="module")
def address():
    """Serve the site on this machine."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(SITE))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the `test` extra")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_page_load_timeout(180)
    browser.set_script_timeout(180)
    yield browser
    browser.quit()


def resize(browser, size):
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def wait_until(browser, script):
    """Wait for a condition in the page; the limit is there only so that nothing hangs."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 120).until(lambda b: b.execute_script(f"return {script}"))


def open_page(browser, url):
    """Open a page, and wait for its images and equations."""
    browser.get(url)
    wait_until(browser, "document.readyState === 'complete'")
    browser.execute_script(
        "document.querySelectorAll('img[loading=lazy]').forEach(i => { i.loading = 'eager'; })"
    )
    wait_until(browser, "[...document.images].every(i => i.complete)")
    if browser.execute_script("return document.querySelector('.math') !== null"):
        wait_until(browser, "document.querySelector('mjx-container') !== null")


def console_errors(browser):
    """Return the errors in the console since the last call; the theme writes notices there too."""
    log = browser.get_log("browser")
    return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


#: Text that sticks out of the window, or is too small to read.
LEGIBILITY = """
const wide = document.documentElement.scrollWidth - window.innerWidth;
const article = document.querySelector('.bd-article');
const small = [...article.querySelectorAll('p, li, td, th, pre, code')].filter(element =>
  element.innerText.trim() && parseFloat(getComputedStyle(element).fontSize) < 11);
const pictures = [...document.images].filter(i => i.naturalWidth === 0).map(i => i.src);
const math = document.querySelectorAll('mjx-merror').length;
return {wide, small: small.length, pictures, math, heading: article.querySelectorAll('h1').length};
"""

#: The lowest contrast of text with what is behind it, by WCAG 2.
CONTRAST = """
function channels(colour) {
  const parts = colour.match(/[\\d.]+/g).map(Number);
  return parts.length === 3 ? [...parts, 1] : parts;
}
function luminance(rgb) {
  const [r, g, b] = rgb.slice(0, 3).map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = channels(getComputedStyle(e).backgroundColor);
    if (colour[3] > 0.99) return colour;
  }
  return [255, 255, 255, 1];
}
let worst = [99, ''];
for (const element of document.querySelectorAll('.bd-article p, .bd-article a, .bd-article td')) {
  if (!element.innerText.trim() || element.closest('.sd-btn, .sphx-glr-thumbcontainer')) continue;
  const [a, b] = [luminance(channels(getComputedStyle(element).color)), luminance(behind(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < worst[0]) worst = [ratio, element.innerText.slice(0, 60)];
}
return worst;
"""


def read_pages():
    """The pages that people read; those of single objects and modules look alike."""
    paths = [path.relative_to(SITE).as_posix() for path in pages()] if SITE.exists() else []
    skipped = ("api/", "_modules/", "genindex", "py-modindex", "search")
    shown = [path for path in paths if not path.startswith(skipped)]
    return [*shown, "api/skhebae.HEBAETransformer.html"]


@pytest.mark.parametrize("size", SIZES)
def test_pages_are_legible(browser, address, size):
    resize(browser, size)
    SCREENSHOTS.mkdir(exist_ok=True)
    faults = {}
    for page in read_pages():
        browser.get_log("browser")
        open_page(browser, f"{address}/{page}")
        found = browser.execute_script(LEGIBILITY)
        found["console"] = console_errors(browser)
        browser.save_screenshot(str(SCREENSHOTS / f"{page.replace('/', '_')[:-5]}_{size}.png"))
        expected = {"small": 0, "pictures": [], "math": 0, "console": [], "heading": 1}
        if {name: found[name] for name in expected} != expected or found["wide"] > 0:
            faults[page] = found
    assert faults == {}
    assert len(read_pages()) > 50


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(browser, address, theme):
    resize(browser, "desktop")
    browser.get(address)
    browser.execute_script(f"localStorage.setItem('mode', '{theme}')")
    browser.execute_script(f"localStorage.setItem('theme', '{theme}')")
    chosen = ("index", "start", "method", "guide/index", "guide/missing-values", "benchmarks")
    for page in (*chosen, "auto_examples/index", "auto_examples/tables/plot_novelty", "api"):
        open_page(browser, f"{address}/{page}.html")
        assert browser.execute_script("return document.documentElement.dataset.theme") == theme
        background = browser.execute_script(
            "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        assert (sum(background[:3]) < 200) is (theme == "dark")
        ratio, text = browser.execute_script(CONTRAST)
        assert ratio >= 4.5, (page, text)
        name = f"{page.replace('/', '_')}_{theme}.png"
        browser.save_screenshot(str(SCREENSHOTS / name))
    browser.execute_script("localStorage.clear()")


def test_search_finds_impute(browser, address):
    resize(browser, "desktop")
    browser.get_log("browser")
    open_page(browser, f"{address}/search.html?q=impute")
    # Results come one after the other.
    titles = "[...document.querySelectorAll('ul.search li > a')].map(a => a.innerText)"
    wait_until(browser, f"{titles}.some(title => /missing values/i.test(title))")
    assert console_errors(browser) == []
    browser.save_screenshot(str(SCREENSHOTS / "search_impute.png"))


def test_the_start_page_leads_to_its_three_cards(browser, address):
    resize(browser, "desktop")
    open_page(browser, f"{address}/index.html")
    from selenium.webdriver.common.by import By

    cards = browser.find_elements(By.CSS_SELECTOR, ".sd-card a.sd-stretched-link")
    assert len(cards) == 3
    for target in [card.get_attribute("href") for card in cards]:
        open_page(browser, target)
        assert browser.find_element(By.CSS_SELECTOR, "h1").text
