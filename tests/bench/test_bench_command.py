"""``graphdriver bench`` from end to end, on a tiny image."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from tinyimage import tiny_image

from graphdrivers.bench.workloads import WORKLOADS
from graphdrivers.linux import mountinfo

DRIVERS = "overlay,vfs" if os.geteuid() == 0 else "vfs"
QUICK = ["--drivers", DRIVERS, "--files", "20", "--repeats", "1", "--budget", "0", "--no-user-namespace"]


@pytest.fixture
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny image."""
    return str(tiny_image(tmp_path_factory.mktemp("image") / "layout"))


def bench(*arguments: str, tmp_path: pathlib.Path, columns: int = 80) -> subprocess.CompletedProcess[str]:
    """Run the benchmark as a process, its scratch folder below ``tmp_path``."""
    return subprocess.run(
        [sys.executable, "-m", "graphdrivers", "bench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "COLUMNS": str(columns)},
    )


def check_document(document: dict[str, Any]) -> None:
    """Check the documented shape."""
    assert set(document) == {
        "schema",
        "kind",
        "complete",
        "created",
        "facts",
        "settings",
        "drivers",
        "refused",
        "results",
    }
    assert (document["schema"], document["kind"]) == (1, "graphdrivers-bench")
    for result in document["results"]:
        if result["reason"] is None:
            assert result["low"] <= result["median"] <= result["high"]
            assert len(result["samples"]) == 1


def test_everything(tmp_path: pathlib.Path, image: str) -> None:
    """All workloads on all built-in drivers: a table within 80 columns, a document, nothing left behind."""
    target = tmp_path / "out.json"
    ran = bench(*QUICK, "--image", image, "--output", str(target), tmp_path=tmp_path)

    assert ran.returncode == 0, ran.stderr
    document = json.loads(target.read_text())
    check_document(document)
    assert document["complete"] is True
    assert document["refused"] == []
    names = DRIVERS.split(",")
    assert [(one["workload"], one["driver"]) for one in document["results"]] == [
        (workload.name, name) for workload in WORKLOADS for name in names
    ]
    assert [one["reason"] for one in document["results"] if one["reason"]] == []
    assert max(len(line) for line in ran.stdout.splitlines() if image not in line) <= 80
    assert "WORKLOAD" in ran.stdout
    assert os.listdir(tmp_path) == ["out.json"]
    assert mountinfo.mounted_below(str(tmp_path)) == []


def test_some_workloads_as_json(tmp_path: pathlib.Path) -> None:
    """Named workloads on the built-in sample, in the report's order; --json prints the document and nothing else."""
    ran = bench(*QUICK, "create", "apply", "--json", tmp_path=tmp_path)

    document = json.loads(ran.stdout)
    check_document(document)
    assert list(dict.fromkeys(one["workload"] for one in document["results"])) == ["apply", "create"]
    assert ran.stderr == ""


def test_compared_with_before(tmp_path: pathlib.Path, image: str) -> None:
    """--compare adds how each median changed, to the table and to the document; another file is a usage error."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert bench("create", *QUICK, "--image", image, "-o", str(old), tmp_path=tmp_path).returncode == 0
    ran = bench("create", *QUICK, "--image", image, "-o", str(new), "--compare", str(old), tmp_path=tmp_path)

    assert ran.returncode == 0
    assert "BEFORE" in ran.stdout
    assert {one["workload"] for one in json.loads(new.read_text())["comparison"]} == {"create"}
    assert bench("--compare", "/dev/null", tmp_path=tmp_path).returncode == 2


def test_a_driver_that_is_not_there(tmp_path: pathlib.Path, image: str) -> None:
    """Beside one that works it is left out with its reason; alone it is the error."""
    ran = bench("create", "--drivers", "vfs,nonesuch", "--image", image, *QUICK[2:], tmp_path=tmp_path)
    assert ran.returncode == 0
    assert "nonesuch left out" in ran.stdout

    alone = bench("create", "--drivers", "nonesuch", "--image", image, tmp_path=tmp_path)
    assert alone.returncode == 14
    assert alone.stderr.startswith("graphdriver: driver 'nonesuch'")
    assert os.listdir(tmp_path) == []


def test_a_damaged_image(tmp_path: pathlib.Path) -> None:
    """Is one line, and leaves nothing."""
    empty = tmp_path / "image"
    empty.mkdir()
    ran = bench("--image", str(empty), tmp_path=tmp_path)

    assert ran.returncode == 72
    assert ran.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["image"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: pathlib.Path, image: str, number: signal.Signals) -> None:
    """Ctrl-C shows and writes what was measured; both signals clean up and end with their code."""
    target = tmp_path / "out.json"
    command = ["bench", "create", "read", "--repeats", "1000", "--budget", "600", "--files", "20", "--image", image]
    with subprocess.Popen(
        [sys.executable, "-m", "graphdrivers", "-v", *command, "--drivers", DRIVERS, "-o", str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"measuring create" in line:
                break
        time.sleep(0.5)  # in the middle of it, wherever that is
        process.send_signal(number)
        out, err = process.communicate()

    assert process.returncode == 128 + number
    assert b"Traceback" not in err
    left = set(os.listdir(tmp_path))
    assert mountinfo.mounted_below(str(tmp_path)) == []
    if number == signal.SIGINT:
        assert b"create a child of it" in out
        assert json.loads(target.read_text())["complete"] is False
        left.remove("out.json")
    assert left == set()
