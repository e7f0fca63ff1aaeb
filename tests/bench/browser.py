"""What a real browser makes of a page: headless Chromium lays it out, a script beside it looks."""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest

_LOOK = """
const frame = document.querySelector('iframe'), seen = frame.contentDocument;
const style = frame.contentWindow.getComputedStyle;
const width = seen.documentElement.clientWidth;
const outside = [...seen.querySelectorAll('body *')].filter(
  one => !one.closest('.wide') && one.getBoundingClientRect().right > width + 1).map(one => one.tagName);
const charts = [...seen.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width);
const bars = [...seen.querySelectorAll('svg .reactive')].filter(one => one.getBoundingClientRect().width > 0).length;
document.title = JSON.stringify({
  width, page: seen.documentElement.scrollWidth, outside, charts, bars, title: seen.title,
  paper: style(seen.body).backgroundColor, ink: style(seen.body).color,
  requests: frame.contentWindow.performance.getEntriesByType('resource').map(one => one.name),
});
"""


def chromium() -> str:
    """Find the browser; without one the test is left out, but fails in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        if os.environ.get("CI") and not os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS"):
            pytest.fail("chromium is not installed, and CI must look at the page: see scripts/system-packages")
        pytest.skip("chromium is not installed")
    return found


def look(page: str, folder: pathlib.Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """Lay a page out ``width`` pixels wide and say what is seen."""
    around = folder / "around.html"
    around.write_text(
        f'<meta charset="utf-8"><iframe style="width:{width}px;height:5000px;border:0" srcdoc="{html.escape(page)}">'
        f"</iframe><script>onload = () => {{ {_LOOK} }}</script>"
    )
    # preferredColorScheme: 0 is dark, 1 is light
    told = subprocess.run(
        [
            *(chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"),
            *(f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom", around.as_uri()),
        ],
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
    )
    title = re.search(r"<title>(.*?)</title>", told.stdout, re.DOTALL)
    assert title, told.stdout[:500] + told.stderr[-500:]
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    return found
