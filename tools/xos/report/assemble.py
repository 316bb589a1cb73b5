#!/usr/bin/env python3
"""assemble.py PAGE STYLE SCRIPT CHARTS OUTPUT: puts the parts of the report into one page."""
import pathlib
import sys

page, style, script, charts, output = map(pathlib.Path, sys.argv[1:])
text = page.read_text()
# A library that ended its element early would be shown as text.
for place, part in (("@STYLE@", style), ("@SCRIPT@", script), ("@CHARTS@", charts)):
    content = part.read_text()
    if "</script" in content or "</style" in content:
        sys.exit(f"{part} cannot be in a page")
    before, after = text.split(place)
    text = before + content.replace("//# sourceMappingURL", "// from") + after
output.write_text(text)
