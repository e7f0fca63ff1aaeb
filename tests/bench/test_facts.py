"""The machine's facts."""

import json
import os
import pathlib
import subprocess

from graphdrivers.bench import facts


def test_machine() -> None:
    """All that changes the numbers is named, in values that JSON can hold."""
    found = facts.machine()

    assert json.loads(json.dumps(found)) == found
    assert found["kernel"] == os.uname().release
    assert all(found[key] for key in ("architecture", "cpu", "cpus", "memory", "user", "python", "versions"))


def test_place(tmp_path: pathlib.Path) -> None:
    """The file system of a directory is what findmnt says it is."""
    found = facts.place(str(tmp_path))
    asked = ["findmnt", "--noheadings", "--raw", "--output", "SOURCE,OPTIONS", "--target", str(tmp_path)]
    told = subprocess.run(asked, check=True, capture_output=True, text=True)
    source, options = told.stdout.split()

    assert found["filesystem"]
    assert found["source"] == source
    assert set(options.split(",")) >= set(found["options"] if isinstance(found["options"], list) else [])
