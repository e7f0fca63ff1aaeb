"""The page: one file, light and dark, on a phone, drawn by a real browser."""

import html
import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from benchdocuments import a_document, cell, workload
from browser import look
from test_bench_command import DRIVERS, QUICK, bench
from tinyimage import tiny_image

from graphdrivers.bench import advice, charts, page, view
from graphdrivers.bench.results import Results
from graphdrivers.bench.workload import Row

EIGHT = ["aufs", "btrfs", "devicemapper", "example", "fuse-overlayfs", "overlay", "vfs", "zfs"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Measure all workloads for real; give the page and the document."""
    folder = tmp_path_factory.mktemp("page")
    image, target, output = tiny_image(folder / "image"), folder / "page.html", folder / "out.json"
    ran = bench(*QUICK, "--calls", "--image", str(image), "--html", str(target), "-o", str(output), tmp_path=folder)
    assert ran.returncode == 0, ran.stderr
    return target.read_text(), json.loads(output.read_text())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200], ids=["phone", "desk"])
def test_a_browser_draws_it(
    measured: tuple[str, dict[str, Any]],
    tmp_path: pathlib.Path,
    width: int,
    dark: bool,  # noqa: FBT001 - a parameter of the table above
) -> None:
    """Every workload has a chart with something in it, nothing sticks out, nothing is fetched, and dark is dark."""
    text, document = measured
    seen = look(text.replace("<details>", "<details open>"), tmp_path, width, dark=dark)

    assert seen["title"].startswith("Storage drivers on")
    assert len(seen["charts"]) == len(document["workloads"])
    assert all(200 < chart <= width for chart in seen["charts"])
    assert seen["bars"] >= len(document["workloads"])
    assert (seen["page"], seen["outside"], seen["requests"]) == (seen["width"], [], [])
    paper, ink = (sum(map(int, re.findall(r"[0-9]+", seen[key])[:3])) for key in ("paper", "ink"))
    assert (paper < ink) is dark


def test_it_needs_nothing_else(measured: tuple[str, dict[str, Any]]) -> None:
    """No script, no address but the names of XML's vocabularies, and a policy that forbids both."""
    text, _document = measured

    assert "<script" not in text
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in html.unescape(text)


def test_everything_is_told(measured: tuple[str, dict[str, Any]]) -> None:
    """All drivers, rows, reasons and facts of the document are on the page."""
    text, document = measured
    rows = [row["title"] for one in document["workloads"] for row in one["rows"]]

    for told in [*DRIVERS.split(","), *rows, document["facts"]["kernel"], document["settings"]["cold"]]:
        assert page._text(told) in text, told
    for result in document["results"]:
        assert result["reason"] is None or page._text(result["reason"]) in text


def test_what_drivers_say_is_text() -> None:
    """A name, a note and a reason with markup in them are shown as they are, in charts too."""
    evil = "<b>&\"'"
    document = a_document(Results([cell(workload(), evil, 1.0), cell(workload(), "b", reason=evil)]), evil, "b")
    document["facts"] = {"cpu": evil}
    document["drivers"][0]["notes"] = [evil]
    text = page.page(document)

    assert "<b>" not in text
    assert text.count("&lt;b&gt;") >= 5


def test_charts_are_svg_with_a_text_for_those_who_do_not_see_it() -> None:
    """Also of one driver, of nothing but zeros, of figures far apart, and of eight drivers."""
    for samples in ([1.0], [0.0, 0.0], [1e-6, 1.0], [float(n) for n in range(1, 9)]):
        what = workload()
        cells = [cell(what, driver, value) for driver, value in zip(EIGHT, samples, strict=False)]
        drawn = charts.chart(view.sections(a_document(Results(cells), *EIGHT[: len(cells)]))[0], EIGHT, 0)
        root = ET.fromstring(drawn)  # noqa: S314 - our own
        assert root.get("aria-label", "").startswith("what a row means: ")
        assert all(driver in drawn for driver in EIGHT[: len(cells)])


def test_numbered_rows_are_curves() -> None:
    """Depths lie on one axis; a depth that was not measured is a gap."""
    rows = [Row(f"mount-{n}", str(n), f"mount, {n} layers") for n in (2, 10)]
    what = workload("deep", *rows)
    cells = [cell(what, "a", 1.0, row="mount-2"), cell(what, "a", reason="too deep", row="mount-10")]
    cells += [cell(what, "b", float(n), row=row.name) for n, row in enumerate(rows, 1)]
    section = view.sections(a_document(Results(cells), "a", "b"))[0]

    assert charts.caption(section) == "mount, N layers"
    assert len(re.findall('class="dot reactive', charts.chart(section, ["a", "b"], 0))) == 3


def test_the_summary_is_computed() -> None:
    """Best, perhaps as good, and how far behind, with what only one can do; other numbers say something else."""
    what = workload("ci")
    fast, close, slow = [1.0, 1.1, 1.2], [1.15, 1.2, 1.3], [4.0, 4.4, 4.8]

    def told(**samples: list[float]) -> list[str]:
        document = a_document(Results([cell(what, name, *values) for name, values in samples.items()]), *samples)
        document["drivers"][0]["capabilities"] = {"fork_live": True}
        return advice.summary(document)

    assert told(a=fast, b=close, c=slow) == [
        "Only a forks containers while they run.",
        "For doing ci: a (what a row means: 1.10 s); b may be as good; c 4.00x as much.",
    ]
    assert told(a=slow, b=fast)[1] == "For doing ci: b (what a row means: 1.10 s); a 4.00x as much."
    assert told(a=fast) == []


def test_without_pygal_there_is_a_line(tmp_path: pathlib.Path) -> None:
    """What to install, before anything is measured."""
    (tmp_path / "pygal.py").write_text("raise ModuleNotFoundError('No module named pygal', name='pygal')\n")
    ran = subprocess.run(
        [sys.executable, "-m", "graphdrivers", "bench", "unpack", "--no-user-namespace", "--html", "page.html"],
        env={"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 2
    assert "pip install 'graphdrivers[report]'" in ran.stderr
    assert not (tmp_path / "page.html").exists()
