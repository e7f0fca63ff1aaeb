"""``graphdriver bench`` from end to end, on a tiny image."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
import pytest
from tinyimage import tiny_image

from graphdrivers.bench.document import schema
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


@contextlib.contextmanager
def busy(command: Sequence[str], tmp_path: pathlib.Path, doing: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the program, its scratch folder below ``tmp_path``, and give it once it tells that it is doing something."""
    with subprocess.Popen(
        [sys.executable, "-m", "graphdrivers", "-v", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if doing.encode() in line:
                break
        yield process


def check_document(document: dict[str, Any]) -> None:
    """Check it against the schema that is shipped."""
    jsonschema.validate(document, schema())
    for result in document["results"]:
        if result["reason"] is None:
            assert result["low"] <= result["median"] <= result["high"]
            assert len(result["samples"]) == len(result["operations"]) == 1


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
    assert [(one["workload"], one["row"], one["driver"]) for one in document["results"]] == [
        (workload.name, row.name, name) for workload in WORKLOADS for row in workload.rows for name in names
    ]
    dashes = {(one["workload"], one["row"]) for one in document["results"] if one["reason"]}
    may_be_slow = {"deep"}, {("density", f"{what}-{n}") for what in ("disk", "memory") for n in (1, 10, 50)}
    assert {one for one in dashes if one[0] not in may_be_slow[0]} <= {("read", "cold"), *may_be_slow[1]}
    assert max(len(line) for line in ran.stdout.splitlines() if image not in line) <= 80
    assert "unpack: unpack a real image" in ran.stdout
    assert os.listdir(tmp_path) == ["out.json"]
    assert mountinfo.mounted_below(str(tmp_path)) == []


def test_some_workloads_as_json(tmp_path: pathlib.Path) -> None:
    """Named workloads on the built-in sample, in the report's order; --json prints the document and nothing else."""
    ran = bench(*QUICK, "read", "unpack", "--json", tmp_path=tmp_path)

    document = json.loads(ran.stdout)
    check_document(document)
    assert list(dict.fromkeys(one["workload"] for one in document["results"])) == ["unpack", "read"]
    assert ran.stderr == ""


def test_compared_with_before(tmp_path: pathlib.Path, image: str) -> None:
    """--compare adds how each median changed, to the table and to the document; another file is a usage error."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert bench("unpack", *QUICK, "--image", image, "-o", str(old), tmp_path=tmp_path).returncode == 0
    ran = bench("unpack", *QUICK, "--image", image, "-o", str(new), "--compare", str(old), tmp_path=tmp_path)

    assert ran.returncode == 0
    assert "BEFORE" in ran.stdout
    assert {one["workload"] for one in json.loads(new.read_text())["comparison"]} == {"unpack"}
    assert bench("--compare", "/dev/null", tmp_path=tmp_path).returncode == 2


def test_a_driver_that_is_not_there(tmp_path: pathlib.Path, image: str) -> None:
    """Beside one that works it is left out with its reason; alone it is the error."""
    ran = bench("unpack", "--drivers", "vfs,nonesuch", "--image", image, *QUICK[2:], tmp_path=tmp_path)
    assert ran.returncode == 0
    assert "nonesuch left out" in ran.stdout

    alone = bench("unpack", "--drivers", "nonesuch", "--image", image, tmp_path=tmp_path)
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
    command = [
        "bench",
        "ci",
        "unpack",
        "--repeats",
        "1000",
        "--budget",
        "600",
        "--precision",
        "0",
        "--files",
        "20",
        "--image",
        image,
    ]
    with busy([*command, "--drivers", DRIVERS, "-o", str(target)], tmp_path, "measuring unpack") as process:
        time.sleep(0.5)  # in the middle of it, wherever that is
        process.send_signal(number)
        out, err = process.communicate()

    assert process.returncode == 128 + number
    assert b"Traceback" not in err
    left = set(os.listdir(tmp_path))
    assert mountinfo.mounted_below(str(tmp_path)) == []
    if number == signal.SIGINT:
        assert b"unpack: unpack a real image" in out
        assert json.loads(target.read_text())["complete"] is False
        left.remove("out.json")
    assert left == set()


def test_a_regression_is_an_exit_code(tmp_path: pathlib.Path, image: str) -> None:
    """What takes twice the disk that an earlier file says is exit code 4, and none with a tolerance above that."""
    old = tmp_path / "old.json"
    assert bench("unpack", *QUICK, "--image", image, "-o", str(old), tmp_path=tmp_path).returncode == 0
    document = json.loads(old.read_text())
    for result in document["results"]:
        if result["unit"] == "B":
            result["median"] = result["low"] = result["high"] = result["median"] / 2
    old.write_text(json.dumps(document))
    again = ["unpack", *QUICK, "--image", image, "--compare", str(old)]

    assert bench(*again, tmp_path=tmp_path).returncode == 4
    assert bench(*again, "--tolerance", "150%", tmp_path=tmp_path).returncode == 0


def test_workloads_are_explained(tmp_path: pathlib.Path) -> None:
    """--list names each with what it models, and measures nothing."""
    told = bench("--list", tmp_path=tmp_path).stdout
    values = json.loads(bench("--list", "--json", "read", tmp_path=tmp_path).stdout)

    assert all(f"{workload.name}: " in told for workload in WORKLOADS)
    assert [one["name"] for one in values] == ["read"]


def test_places_and_options_are_per_driver(tmp_path: pathlib.Path, image: str) -> None:
    """--place puts one driver elsewhere, --opt DRIVER.KEY=VALUE tells one driver something; both are reported."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    given = ["--drivers", "aufs,vfs", "--place", f"vfs={place}", "--opt", "aufs.engine=copy", "-v"]
    ran = bench("unpack", *QUICK[2:], *given, "--image", image, "--json", tmp_path=tmp_path)
    aufs, vfs = json.loads(ran.stdout)["drivers"]

    assert aufs["options"] == {"engine": "copy"}
    assert vfs["options"] == {}
    assert os.listdir(place) == []
    wrong = bench("unpack", "--place", "vfs=/nonesuch", tmp_path=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_an_option_that_is_not_known(tmp_path: pathlib.Path, image: str) -> None:
    """Leaves that driver out with the reason, and the others are measured."""
    ran = bench("unpack", *QUICK, "--opt", "vfs.nonesuch=1", "--image", image, tmp_path=tmp_path)

    assert "vfs left out" in ran.stdout if DRIVERS != "vfs" else ran.returncode


def test_system_calls(tmp_path: pathlib.Path, image: str) -> None:
    """--calls adds a table within 80 columns and a valid document; compared later, what changed is told by name."""
    target = tmp_path / "out.json"
    given = ["unpack", "database", *QUICK, "--image", image, "--calls"]
    ran = bench(*given, "-o", str(target), tmp_path=tmp_path)
    assert ran.returncode == 0, ran.stderr

    document = json.loads(target.read_text())
    check_document(document)
    counted = {(one["row"], one["driver"]): one["calls"] for one in document["results"] if "calls" in one}
    assert {row for row, _driver in counted} == {"apply", "copy-up", "write", "read"}
    assert all(one["reason"] is None and one["operation"] >= 1 for one in counted.values())
    assert document["settings"]["calls"].startswith("strace")
    assert "System calls of one operation, by strace" in ran.stdout
    assert "database (4 KiB + fsync) on vfs: fsync 1, pwrite64 1" in ran.stdout
    assert max(len(line) for line in ran.stdout.splitlines() if image not in line) <= 80

    for one in document["results"]:
        if one["row"] == "write":
            one["calls"]["names"]["fsync"] -= 0.5
            one["calls"]["operation"] -= 0.5
    target.write_text(json.dumps(document))
    again = bench(*given, "--compare", str(target), tmp_path=tmp_path)
    assert again.returncode == 0
    assert [line.split()[-2:] for line in again.stdout.splitlines() if "fsync +0.5" in line] == [
        ["fsync", "+0.5"]
    ] * len(DRIVERS.split(","))
    assert os.listdir(tmp_path) == ["out.json"]


def test_system_calls_without_strace(tmp_path: pathlib.Path, image: str) -> None:
    """Are told as missing before anything is measured, and again with the figures, which are there."""
    given = ["unpack", "--drivers", "vfs", *QUICK[2:], "--image", image, "--calls", "--json"]
    ran = subprocess.run(
        [sys.executable, "-m", "graphdrivers", "bench", *given],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": str(tmp_path), "TMPDIR": str(tmp_path)},
    )

    reason = "strace is not installed: install it"
    assert ran.stderr == f"graphdriver: note: system calls cannot be counted: {reason}\n"
    document = json.loads(ran.stdout)
    check_document(document)
    assert document["settings"]["calls"] == f"not at all: {reason}"
    assert {one["calls"]["reason"] for one in document["results"] if "calls" in one} == {reason}


def test_interrupted_while_system_calls_are_counted(tmp_path: pathlib.Path, image: str) -> None:
    """What was timed is shown, nothing is left behind, and no strace."""
    target = tmp_path / "out.json"
    command = ["bench", "unpack", "build", "ci", "sandbox", *QUICK, "--image", image, "--calls", "-o", str(target)]
    tracer = "0"
    with busy(command, tmp_path, "measuring calls of unpack") as process:
        while tracer == "0":
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            tracer = next(line.split()[1] for line in status.splitlines() if line.startswith("TracerPid:"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()

    assert process.returncode == 128 + signal.SIGINT, err
    assert b"unpack: unpack a real image" in out
    found = json.loads(target.read_text())
    jsonschema.validate(found, schema())
    assert found["complete"] is False
    assert "it was not reached" in {one["calls"]["reason"] for one in found["results"] if "calls" in one}
    assert os.listdir(tmp_path) == ["out.json"]
    assert not os.path.exists(f"/proc/{tracer}")
