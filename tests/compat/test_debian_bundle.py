"""A real Debian image runs in a real runtime, on a root that a driver mounted."""

import io
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
from test_debian_image import FOLDER, SCRIPT, import_layers

from graphdrivers.driver import Driver
from graphdrivers.images.bundle import write_bundle
from graphdrivers.images.initlayer import init_tar
from graphdrivers.images.opening import open_image
from graphdrivers.images.run_options import RunOptions
from graphdrivers.images.runtime_spec import runtime_spec
from graphdrivers.linux import mounts
from graphdrivers.loading import load_driver

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="root is needed for owners and device nodes"),
    pytest.mark.skipif(
        FOLDER not in os.environ, reason=f"set {FOLDER} to a folder; the image is downloaded into it, once"
    ),
]

# crun refuses to run where cgroups of both versions are mounted, unless the second's are out of sight.
RUN = """
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
exec crun --root "$1/state" run --bundle "$1/bundle" graphdrivers-debian-$$
"""


@pytest.fixture(scope="module")
def layout() -> str:
    """The image's layout, built unless it is there."""
    folder = os.environ[FOLDER]
    subprocess.run([SCRIPT, folder], check=True)
    return os.path.join(folder, "layout")


@pytest.fixture(scope="module")
def driver(layout: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A driver with the image's layers, and the init layer over them."""
    driver = load_driver("overlay", tmp_path_factory.mktemp("home"), {})
    top = import_layers(driver, layout)
    with mounts.opened(driver.mounts(top, view=True)) as root:
        tar = init_tar(root)
    driver.create("init", parent=top)
    driver.apply("init", io.BytesIO(tar))
    driver.seal("init")
    yield driver
    for record in list(driver.layers()):
        driver.remove(record.name)
    driver.close()


@pytest.fixture
def rootfs(driver: Driver, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The root of a new container, called ``box``, mounted."""
    driver.create("box", parent="init")
    rootfs = tmp_path / "root"
    rootfs.mkdir()
    mounts.attach(driver.mounts("box"), os.fspath(rootfs))
    yield rootfs
    mounts.detach(os.fspath(rootfs))
    driver.remove("box")


def run(layout: str, rootfs: pathlib.Path, script: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a script of bash in the container."""
    wanted = RunOptions(args=("/bin/bash", "-c", script), **options)  # type: ignore[arg-type]
    root = os.open(rootfs, os.O_RDONLY)
    try:
        with open_image(layout, reference="debian") as image:
            spec = runtime_spec(image.config, root, wanted, image.source)
    finally:
        os.close(root)
    write_bundle(rootfs.parent / "bundle", spec, rootfs=os.fspath(rootfs))
    command = ["unshare", "--mount", "sh", "-euc", RUN, "sh", rootfs.parent]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_runs(driver: Driver, layout: str, rootfs: pathlib.Path) -> None:
    """Programs of the image run, and what they do not write is not in the container's layer."""
    done = run(layout, rootfs, "cat /etc/os-release; dpkg --list | wc -l; mount; exit 3")

    assert done.returncode == 3, done.stderr
    assert (rootfs / "etc/os-release").read_text() in done.stdout
    assert " on / type overlay (rw," in done.stdout
    assert list(driver.changes("box")) == []


def test_user(layout: str, rootfs: pathlib.Path) -> None:
    """A user of the image is who the image's own programs say; the program with set-user-ID bits works too."""
    done = run(layout, rootfs, "id; echo ~; su --help >/dev/null && echo fine", user="www-data", env=("A=1",))

    assert done.stdout.splitlines() == [
        "uid=33(www-data) gid=33(www-data) groups=33(www-data)",
        "/var/www",
        "fine",
    ], done.stderr


def test_packages(driver: Driver, layout: str, rootfs: pathlib.Path) -> None:
    """The package manager removes a package, and the layer has just that."""
    done = run(layout, rootfs, "dpkg --remove less && ! command -v less")

    assert done.returncode == 0, done.stderr
    deleted = {change.path for change in driver.changes("box") if change.kind == "deleted"}
    assert "/usr/bin/less" in deleted


def test_readonly(layout: str, rootfs: pathlib.Path) -> None:
    """With a read-only root nothing can be written but to the standard mounts."""
    done = run(layout, rootfs, "touch /etc/x /var/x; touch /dev/shm/x && echo written", readonly=True)

    assert done.stdout == "written\n", done.stderr
    assert done.stderr.count("Read-only file system") == 2
