"""The machine's facts."""

import json
import os
import pathlib

from graphdrivers.bench import facts


def test_machine(tmp_path: pathlib.Path) -> None:
    """All that changes the numbers is named, in values that JSON can hold."""
    found = facts.machine(str(tmp_path))

    assert json.loads(json.dumps(found)) == found
    assert found["kernel"] == os.uname().release
    assert all(
        found[key] for key in ("architecture", "cpu", "cpus", "memory", "filesystem", "user", "python", "versions")
    )
