"""The report in a real headless Chromium: sorting, filters, keyboard, colours, and not a byte from elsewhere."""

import json
import os
import shutil

import pytest

from benchmark.cli.__main__ import main
from benchmark.core.paths import ROOT

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-sync",
    "--window-size=1280,900",
)
RECORDS = ROOT / "results" / "records"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
if not (BROWSER and DRIVER) and os.environ.get("KDSEG_REQUIRE_BROWSER") != "1":
    pytestmark.append(pytest.mark.skip(reason="needs chromium and chromedriver (Debian: chromium chromium-driver)"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """The report of the committed records, opened."""
    from selenium import webdriver

    folder = tmp_path_factory.mktemp("report")
    file = folder / "report.html"
    assert main(["report", "--work-dir", str(RECORDS), "--output", str(file)]) == 0
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER or "chromedriver"))
    made.set_script_timeout(60)
    made.get(file.as_uri())
    yield made
    made.quit()


def script(browser, text, *arguments):
    return browser.execute_script(text, *arguments)


COLUMN = """
const table = document.querySelector('#t-main-drawn-demo table');
return [...table.tBodies[0].rows].map((row) => row.cells[arguments[0]].textContent.trim());
"""
HEAD = "return document.querySelector('#t-main-drawn-demo table').tHead.rows[0].cells[arguments[0]]"


def test_nothing_is_fetched_and_the_console_is_silent(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    # The browser's own start page is no business of the report.
    urls = [each["request"]["url"] for each in asked if not each["documentURL"].startswith("chrome:")]
    assert browser.current_url in urls
    assert [url for url in urls if not url.startswith(("file:", "data:"))] == []
    assert browser.get_log("browser") == []
    sizes = script(browser, "return [...document.images].map((image) => image.naturalWidth)")
    assert len(sizes) > 5 and all(sizes)


def test_columns_sort_by_number_both_ways_and_back(browser):
    before = script(browser, COLUMN, 1)
    button = script(browser, HEAD, 1).find_element("tag name", "button")
    button.click()
    numbers = [float(text.split()[0]) for text in script(browser, COLUMN, 1)]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) > 10
    assert script(browser, HEAD, 1).get_attribute("aria-sort") == "descending"
    button.click()
    assert [float(text.split()[0]) for text in script(browser, COLUMN, 1)] == sorted(numbers)
    button.click()
    assert script(browser, COLUMN, 1) == before
    assert script(browser, HEAD, 1).get_attribute("aria-sort") == "none"


def test_minus_signs_and_thousands_are_numbers_and_holes_come_last(browser):
    found = script(
        browser,
        """
      const table = document.createElement('table');
      table.innerHTML = '<tbody>' + ['1,204', '−3.5', '–', '+2', ''].map((t) => `<tr><td>${t}</td></tr>`).join('');
      document.body.append(table);
      const read = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
      sort(table, 0, 'ascending'); const up = read();
      sort(table, 0, 'descending'); const down = read();
      table.remove(); return [up, down];
    """,
    )
    assert found == [["−3.5", "+2", "1,204", "–", ""], ["1,204", "+2", "−3.5", "–", ""]]


def test_filters_hide_what_does_not_fit_and_show_all_brings_it_back(browser):
    from selenium.webdriver.support.ui import Select

    visible = """return [...document.querySelectorAll(arguments[0])].filter((e) => e.getClientRects().length).length"""
    rows = script(browser, visible, "#provenance tbody tr")
    Select(browser.find_element("name", "dataset")).select_by_visible_text("camvid")
    assert 0 < script(browser, visible, "#provenance tbody tr") < rows
    assert script(browser, visible, "#t-main-drawn-demo table") == 0
    assert script(browser, visible, "#t-main-camvid-camvid-small table") == 2
    Select(browser.find_element("name", "pair")).select_by_visible_text("DeepLabV3-MBV2 → SegFormer-MiT-B0")
    assert script(browser, visible, "#t-main-camvid-camvid-small table") == 1
    Select(browser.find_element("name", "method")).select_by_visible_text("kd")
    shown = script(
        browser,
        """return [...document.querySelectorAll('#provenance tbody tr')]
      .filter((row) => row.getClientRects().length).map((row) => row.dataset.method)""",
    )
    assert shown == ["kd"]
    assert " of " in browser.find_element("css selector", "#filters output").text
    browser.find_element("css selector", "#filters button[type=reset]").click()
    assert script(browser, visible, "#provenance tbody tr") == rows


def test_the_keyboard_is_enough(browser):
    from selenium.webdriver.common.keys import Keys

    browser.get(browser.current_url)
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    button = script(browser, HEAD, 2).find_element("tag name", "button")
    script(browser, "arguments[0].focus()", button)
    button.send_keys(Keys.TAB)
    button.send_keys(Keys.SHIFT + Keys.TAB)
    outline = script(browser, "return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "whoever tabs sees where he is"
    button.send_keys(Keys.ENTER)
    assert script(browser, HEAD, 2).get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.SPACE)
    assert script(browser, HEAD, 2).get_attribute("aria-sort") == "ascending"


CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b; };
const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)$/.test(c)) return rgb(c); } return [255, 255, 255]; };
return ['body', 'header p', 'a', 'caption', '.notes', 'figcaption', 'tbody tr:nth-child(even) td', 'summary', 'select']
  .map((name) => { const e = document.querySelector(name);
    const pair = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a);
    return [name, (pair[0] + .05) / (pair[1] + .05)]; });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(browser, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    dark = script(browser, "return matchMedia('(prefers-color-scheme: dark)').matches")
    assert dark == (scheme == "dark")
    paper = script(browser, "return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
    found = script(browser, CONTRAST)
    assert all(ratio >= 4.5 for _, ratio in found), found


def test_a_narrow_window_scrolls_tables_and_not_the_page(browser):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    width = script(browser, "return [document.documentElement.scrollWidth, innerWidth]")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width == [390, 390]


def test_it_prints_with_the_card_unfolded_and_without_controls(browser):
    import base64

    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 100_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = script(browser, "return getComputedStyle(document.getElementById('filters')).display")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert hidden == "none"
    assert script(browser, "return [...document.querySelectorAll('#card details')].every((part) => part.open)")
