#!/usr/bin/python3
"""bench_rows_test.py XOS BAD-ROWS SOURCE: what `xos bench` makes of rows that go wrong, and of what it has measured.

BAD-ROWS is xos-bench with the rows of tests/bench/bad_rows.cpp. None of them enters a cell.
"""
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import jsonschema

xos, bad_rows, source = map(pathlib.Path, sys.argv[1:])
failures = 0


def check(what, holds, *about):
    global failures
    print("ok  " if holds else "FAIL", what, *(() if holds else about))
    failures += not holds


def bench(*words, status=0):
    ended = subprocess.run([command, "bench", *words], capture_output=True, text=True, timeout=600)
    check(f"status of {' '.join(map(str, words))}", ended.returncode == status, ended.returncode, ended.stdout, ended.stderr)
    return ended.stdout


def read(name):
    return json.loads((work / name).read_text())


def valid(results):
    errors = list(validator.iter_errors(results))
    check("the schema", not errors, *(f"{list(e.absolute_path)}: {e.message}" for e in errors))


schema = json.loads((source / "bench/results.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for stored in sorted((source / "bench/results").glob("*.json")):
    valid(json.loads(stored.read_text()))

with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    command = work / "bin/xos"
    command.parent.mkdir()
    shutil.copy(xos, command)
    shutil.copy(bad_rows, work / "bin/xos-bench")

    out = bench("--row-seconds=20", "--rounds=10", "--json", work / "all.json", "--html", work / "all.html",
                "--markdown", work / "all.md", status=1)
    results = read("all.json")
    valid(results)
    rows = {f"{row['suite']}/{row['name']}": row for row in results["rows"]}
    failed = {name: row["note"] for name, row in rows.items() if row["state"] == "failed"}
    check("what failed", failed == {
        "bad/crash": "crashed: Segmentation fault",
        "bad/end": "ended the process with status 3",
        "bad/hang": "was not done after 20 seconds",
        "bad/throw": "a <b>reason</b> and more",
        "bad/crash-of-side": "the child died before it had a result, with wait status 11",
    } or failed.get("bad/crash-of-side", "").endswith("wait status 139") and len(failed) == 5, failed)
    check("the table says so", all(f"FAILED: {why}" in out for why in failed.values()), out)
    good = [row for row in rows.values() if row["state"] == "measured"]
    check("the rest went on", {row["name"] for row in good} == {"first", "no-other", "last"}, rows.keys())
    for row in good:
        ratio = row["ratio"]
        check(f"{row['name']}: the ratio", abs(ratio - row["linux"] / row["xos"]) < 0.02 * ratio, row)
        check(f"{row['name']}: the interval", row["ci_low"] <= ratio <= row["ci_high"], row)
        check(f"{row['name']}: processor time", row["cpu_ratio"] > 0, row["cpu_ratio"])
        check(f"{row['name']}: all rounds", len(row["samples"]["linux"]) == len(row["samples"]["xos"]) == 10)
        median = sorted(row["samples"]["xos"])[5]
        check(f"{row['name']}: the median", abs(row["xos"] - median) < 0.002, row["xos"], median)
    run, = results["runs"]
    check("facts", run["engine"] == "native" and run["rounds"] == 10 and "--row-seconds=20" in run["options"] and
          run["machine"]["kernel"] and run["machine"]["processors"] > 0, run)
    page = (work / "all.html").read_text()
    check("nothing in a row is markup of the page", "<b>reason" not in page and "\\u003cb>reason" in page)
    check("the page needs nothing else", "src=" not in page.split("<script")[0] and len(page) < 1_000_000, len(page))
    check("failures in the Markdown", "* bad/crash, native: crashed: Segmentation fault" in (work / "all.md").read_text())

    # The same figures again, without measuring.
    bench("--from", work / "all.json", "--json", work / "again.json", "--html", work / "again.html")
    check("results go through", read("again.json") == results)
    check("the page is the same", (work / "again.html").read_text() == page)

    # Compared with itself nothing differs; with one that was four times as fast, it does.
    out = bench("--from", work / "all.json", "--compare", work / "all.json")
    check("compared with itself", out.count("the same, as far as the intervals tell") == 3, out)
    changed = json.loads(json.dumps(results))
    for row in changed["rows"]:
        if row["state"] == "measured":
            for key in ("ratio", "ci_low", "ci_high"):
                row[key] *= 10
    (work / "faster.json").write_text(json.dumps(changed))
    out = bench("--from", work / "all.json", "--compare", work / "faster.json")
    check("what is worse", out.count("WORSE") == 3, out)

    # Limits: exceeded, accepted with a reason, and holding then.
    counted = json.loads(json.dumps(results))
    for row in counted["rows"]:
        row["unit"] = "instructions"
        if row["state"] == "measured":
            row["xos"], row["exits_per_op"] = 1000.0, 1.0
    (work / "counted.json").write_text(json.dumps(counted))
    limits = work / "limits.json"
    limits.write_text('{\n "good/first": 900,\n "good/last": {"instructions": 1005, "exits": 1.05}\n}\n')
    words = "--from", work / "counted.json", "--limits", limits
    out = bench(*words, status=1)
    check("exceeded", out == "good/first takes 1,000 instructions, more than its limit of 900\n", out)
    bench(*words, "--accept-limits", "the handler counts")
    check("accepted", limits.read_text() == '{\n "good/first": {"instructions": 1010, "reason": "the handler counts"},\n'
          ' "good/last": {"instructions": 1005, "exits": 1.05}\n}\n', limits.read_text())
    bench(*words)

    # Into the blocks of a document, and nowhere else.
    document = work / "document.md"
    document.write_text("before\n\n<!-- xos bench: good/ -->\nold\n<!-- end of xos bench -->\n\nafter\n")
    bench("--from", work / "counted.json", "--markdown", document)
    text = document.read_text()
    check("a block", text.startswith("before\n\n<!-- xos bench: good/ -->\n") and text.endswith("\n\nafter\n") and
          "old" not in text and "| `first`, counts" in text and "bad" not in text, text)

    # Alone on standard output.
    alone = json.loads(bench("good", "--rounds=1", "--json", "-"))
    check("JSON alone", len(alone["rows"]) == 2)

    # A row that hangs is left by Ctrl-C, and what was there before is kept.
    running = subprocess.Popen([command, "bench", "--rounds=1", "--filter=/", "--json", work / "some.json"], text=True,
                               stdout=subprocess.PIPE, start_new_session=True)
    for line in running.stdout:
        if line.startswith("bad/end"):
            break
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    some = read("some.json")
    valid(some)
    check("Ctrl-C", running.returncode == 130 and some["runs"][0]["interrupted"] and
          [row["name"] for row in some["rows"]][:3] == ["first", "crash", "end"], running.returncode, some)

    # A disk that is full before anything runs.
    out = subprocess.run([command, "bench", "good", "--rounds=1", "--json", "/dev/full"], capture_output=True, text=True)
    check("full disk", out.returncode == 1 and "good/first" not in out.stdout and
          "cannot write /dev/full: No space left on device" in out.stderr, out)
    # What is there stays if the new one cannot be written.
    kept = work / "kept/results.json"
    kept.parent.mkdir()
    kept.write_text("old")
    out = subprocess.run(["prlimit", "--fsize=1000", command, "bench", "good", "--rounds=1", "--json", kept],
                         capture_output=True, text=True)
    check("no room", out.returncode == 1 and kept.read_text() == "old" and list(kept.parent.iterdir()) == [kept] and
          "cannot write" in out.stderr, out)
sys.exit(failures != 0)
