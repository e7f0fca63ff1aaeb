"""The page of measurements says what was measured: written by the program from runs whose figures are known."""

import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

PROGRAM = pathlib.Path(__file__).parents[2] / "benchmarks" / "peers.py"
ROUNDS = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98]


def series(factor: float) -> list[float]:
    """Give seven rounds of something that takes so many times as long as the floor."""
    return [factor * one for one in ROUNDS]


def run_of(
    work: str, samples: dict[str, float], absent: dict[str, str] | None = None, floor: str = ""
) -> dict[str, object]:
    """Give one result as it is kept."""
    found = {name: series(factor) for name, factor in samples.items()}
    return {"work": work, "title": "a work", "samples": found, "absent": absent or {}, "floor": floor, "unit": "s"}


def document(*results: dict[str, object], others: float = 0.0) -> dict[str, object]:
    """Give a run as it is kept."""
    facts = {
        "date": "2026-01-31",
        "kernel": "6.99.1-of-somebody",
        "cpu": "Some processor",
        "cpus": 2,
        "memory": 8 << 30,
        "filesystem": "tmpfs",
        "python": "CPython 3.11.7",
        "versions": {"graphdrivers": "0.1.0"},
        "tools": {"GNU tar": "1.34"},
        "rounds": 7,
        "quick": False,
        "others": others,
    }
    return {"schema": 1, "facts": facts, "results": list(results)}


def written(folder: pathlib.Path, run: dict[str, object]) -> str:
    """Have the page written; give its text."""
    kept = folder / "run.json"
    kept.write_text(json.dumps(run))
    subprocess.run([sys.executable, PROGRAM, "--write", kept, "--docs", folder], check=True, capture_output=True)
    return (folder / "benchmarks.rst").read_text()


def rows_of(page: str) -> list[list[str]]:
    """Give the rows of all tables."""
    rows: list[list[str]] = []
    for line in page.splitlines():
        if cell := re.match(r"   ([* ]) -(?: (.*))?$", line):
            if cell[1] == "*":
                rows.append([])
            rows[-1].append(cell[2] or "")
    return rows


@pytest.mark.parametrize(("factor", "answer"), [(0.5, "yes"), (2.0, "**no**")])
def test_a_target_is_met_when_its_ratio_is_below_it(tmp_path: pathlib.Path, factor: float, answer: str) -> None:
    """Twice GNU tar's time misses the target of 1.0, half of it meets it; both say the ratio and the peer's figure."""
    samples = {"GNU tar": 1.0, "containers-storage": 4.0, "overlay": factor}
    page = written(tmp_path, document(run_of("apply base", samples, floor="GNU tar")))

    (row,) = [row for row in rows_of(page) if len(row) == 8 and row[1] == "apply base" and row[2].startswith("overlay")]
    assert answer == row[6]
    assert row[4].startswith(f"{factor:.2f} (")
    assert row[7] == f"containers-storage: 4.00 s, {4 / factor:.2g} times"


def test_what_was_not_measured_is_a_dash_with_its_reason(tmp_path: pathlib.Path) -> None:
    """A program that cannot do a work has no figure, in no table, and the page says why."""
    result = run_of("apply small", {"GNU tar": 1.0, "overlay": 1.0}, {"aufs": "no such kernel"}, floor="GNU tar")
    page = written(tmp_path, document(result))

    (row,) = [row for row in rows_of(page) if row[1:2] == ["apply small"] and "aufs: aufs: no such kernel" in row]
    assert [row[2], row[4], row[6]] == ["aufs: aufs: no such kernel", "-", "-"]
    assert "aufs (no such kernel)" in page


def test_a_disturbed_run_says_so_and_the_machine_is_told_in_general_words(tmp_path: pathlib.Path) -> None:
    """Others at work are named; the kernel's release is cut to its version."""
    page = written(tmp_path, document(run_of("mount 10", {"overlay": 1.0}), others=1.5))

    assert "Disturbed: other programs and the kernel kept 1.5 of the 2 processors busy" in page
    assert "Linux 6.99," in page
    assert "somebody" not in page


def test_the_chart_is_an_image_that_says_its_figures_in_words(tmp_path: pathlib.Path) -> None:
    """The SVG is well-formed, describes itself, and places what takes longer further to the right."""
    samples = {"GNU tar": 1.0, "containers-storage": 8.0, "overlay": 2.0}
    written(tmp_path, document(run_of("apply base", samples, floor="GNU tar")))

    root = ET.parse(tmp_path / "benchmarks-tmpfs.svg").getroot()  # noqa: S314 - our own
    space = {"s": "http://www.w3.org/2000/svg"}
    words = root.findtext("s:desc", namespaces=space)
    assert words == "apply base: GNU tar 0.5 times ours, containers-storage 4 times ours."
    tar, storage = root.findall("s:g", space)
    circle, diamond = tar.find("s:circle", space), storage.find("s:path", space)
    assert circle is not None
    assert diamond is not None
    assert int(circle.attrib["cx"]) < int(re.findall(r"M(\d+)", diamond.attrib["d"])[0])


def test_a_file_that_is_no_run_is_refused(tmp_path: pathlib.Path) -> None:
    """Nothing is written from something else."""
    (tmp_path / "run.json").write_text('{"schema": 0}')
    command = [sys.executable, PROGRAM, "--write", tmp_path / "run.json", "--docs", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert "not a run of this program" in done.stderr
    assert not (tmp_path / "benchmarks.rst").exists()
