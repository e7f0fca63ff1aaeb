"""What holds for all tests, however they are started."""

import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator

import hypothesis
import pytest


def pytest_configure() -> None:
    """Let Ctrl-C mean what it means in a terminal, and examples take their time.

    A shell starts background jobs with SIGINT ignored, which this process and all it starts would inherit.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # No example is too slow, nor is it too slowly found: on a machine that is busy with something else any of them is.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("patient")


@pytest.fixture(params=["xfs", "ext4"])
def limited(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give an empty file system on which limits of projects hold; tests of the second kernel see that there is one."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    image, place = tmp_path / "image", tmp_path / request.param
    place.mkdir()
    image.touch()
    os.truncate(image, 400 << 20)
    features = ["-O", "quota,project"] if request.param == "ext4" else []
    subprocess.run([f"mkfs.{request.param}", "-q", *features, image], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop,prjquota", image, place], check=False, capture_output=True)
    image.unlink()
    if mounted.returncode:
        pytest.skip("needs loop devices, and a kernel with project quotas")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
