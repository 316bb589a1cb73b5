#!/usr/bin/python3
"""bench_report_test.py XOS SOURCE [FOLDER]: looks at the report of the stored results in Chromium.

It compares every row with the JSON, types into the filter, sorts, and looks whether anything is wider than the screen of a
phone. With FOLDER, screenshots go there.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

xos, source = map(pathlib.Path, sys.argv[1:3])
pictures = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
COLUMNS = ["full", "run", "unit", "linux", "xos", "ratio", "ci_low", "ci_high", "exits_per_op", "cpu_ratio"]
failures = 0


def check(what, holds, *about):
    global failures
    print("ok  " if holds else "FAIL", what, *(() if holds else about))
    failures += not holds


def start(*words, width=1280, height=900):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                 f"--window-size={width},{height}", *words):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)


def table(browser):
    """What a reader sees, and the values behind it."""
    return browser.execute_script("""
        return [...document.querySelectorAll("#rows tbody tr")].map((line) => [...line.cells].map(
            (cell) => ({ text: cell.firstChild ? cell.firstChild.textContent : "", value: cell.dataset.value })));""")


def expected(row):
    run = f"{row['engine']}, {row['mode']}" + (", kernel module" if row["transport"] == "module" else "")
    return {**row, "full": f"{row['suite']}/{row['name']}", "run": run}


def number(text):
    return float(text.replace(",", ""))


def same(cell, value):
    if value is None:
        return cell["text"] == "–" and cell["value"] == ""
    if isinstance(value, str):
        return cell["text"] == cell["value"] == value
    return float(cell["value"]) == value and abs(number(cell["text"]) - value) <= max(0.0051, abs(value) * 0.006)


def compare(browser, rows):
    shown = table(browser)
    check("as many rows as in the JSON", len(shown) == len(rows), len(shown), len(rows))
    wrong = [(row["full"], key, cell) for row, cells in zip(rows, shown)
             for key, cell in zip(COLUMNS, cells) if not same(cell, row[key])]
    check("every figure of every row", not wrong, wrong[:5])
    for row, cells in zip(rows, shown):
        if row["peers"]:
            check(f"other ways of {row['full']}", all(name in cells[10]["text"] for name in row["peers"]), cells[10])
        check(f"note of {row['full']}", row["note"] in cells[11]["text"], cells[11])


def errors(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def painted(browser, canvas):
    """How many pixels of the chart are not empty."""
    return browser.execute_script("""
        const canvas = document.getElementById(arguments[0]);
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let n = 0;
        for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
        return n;""", canvas)


def look(browser, page, rows):
    browser.get(page.as_uri())
    check("no errors", not errors(browser), errors(browser))
    check("nothing from the network", browser.execute_script(
        "return performance.getEntriesByType('resource').length") == 0)
    first = rows[0]["run"]
    lead = browser.find_element(By.ID, "lead").text
    check("the first screen says on what", first in lead, lead)
    mine = [row for row in rows if row["run"] == first and row["state"] == "measured" and row["ratio"] is not None]
    faster = sum(row["ratio"] > 1.02 for row in mine)
    slower = sum(row["ratio"] < 0.98 for row in mine)
    verdict = browser.find_element(By.ID, "verdict").text
    check("and how many are faster and slower", f"{faster} of {len(mine)}" in verdict and f"{slower} of {len(mine)}" in verdict,
          verdict)
    for canvas in ("headlines", "chart"):
        check(f"the chart {canvas} is drawn", painted(browser, canvas) > 5000, painted(browser, canvas))
    compare(browser, rows)

    filter_field = browser.find_element(By.ID, "filter")
    filter_field.send_keys("getppid")
    wanted = [row for row in rows if "getppid" in f"{row['full']} {row['what']} {row['note']}".lower()]
    compare(browser, wanted)
    check("the count says so", browser.find_element(By.ID, "count").text == f"{len(wanted)} of {len(rows)} rows")
    filter_field.clear()
    filter_field.send_keys("no such row")
    compare(browser, [])
    filter_field.clear()
    filter_field.send_keys(" ")
    Select(browser.find_element(By.ID, "kind")).select_by_value("slower")
    compare(browser, [row for row in rows if row["state"] == "measured" and row["ratio"] is not None and row["ratio"] < 0.98])
    Select(browser.find_element(By.ID, "kind")).select_by_value("")

    ratio = browser.find_elements(By.CSS_SELECTOR, "#rows th button")[COLUMNS.index("ratio")]
    last = lambda row: row["ratio"] is None
    browser.execute_script("arguments[0].click()", ratio)
    compare(browser, sorted(rows, key=lambda row: (last(row), -(row["ratio"] or 0))))
    browser.execute_script("arguments[0].click()", ratio)
    compare(browser, sorted(rows, key=lambda row: (last(row), row["ratio"] or 0)))

    for button in browser.find_elements(By.CSS_SELECTOR, "#engines button"):
        button.click()
        check(f"the first screen of {button.text}", button.text in browser.find_element(By.ID, "lead").text)
    check("no errors at the end", not errors(browser), errors(browser))


with tempfile.TemporaryDirectory() as folder:
    page = pathlib.Path(folder) / "report.html"
    stored = sorted((source / "bench/results").glob("*.json"))
    words = [word for file in stored for word in ("--from", file)]
    subprocess.run([xos, "bench", *words, "--html", page], check=True)
    check("below a megabyte", page.stat().st_size < 1_000_000, page.stat().st_size)
    rows = [expected(row) for file in stored for row in json.loads(file.read_text())["rows"]]
    for name, words, size in (("light", [], (1280, 900)), ("dark", ["--force-dark-mode"], (1280, 900)),
                              ("phone", [], (500, 900))):
        browser = start(*words, width=size[0], height=size[1])
        try:
            if name == "light":
                look(browser, page, rows)
            if name == "dark":
                # What a reader's system asks for.
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
            if name == "phone":
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True})
            browser.get(page.as_uri())
            wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
            check(f"nothing is wider than the screen, {name}", wide <= 0, wide)
            back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            check(f"the background, {name}", (back == "rgb(20, 23, 27)") == (name == "dark"), back)
            if name == "light":
                pdf = browser.execute_cdp_cmd("Page.printToPDF", {})
                check("it can be printed", len(pdf["data"]) > 10_000)
            if pictures:
                browser.save_screenshot(str(pictures / f"{name}.png"))
        finally:
            browser.quit()
sys.exit(failures != 0)
