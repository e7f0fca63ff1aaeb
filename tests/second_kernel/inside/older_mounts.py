"""Run in the guest, before anything that relies on it: this kernel has what the tests are about."""

import os
import pathlib

from graphdrivers import loading
from graphdrivers.linux import filesystems, mountinfo, mounts, probe


def test_it_is_the_older_kernel() -> None:
    """The kernel is Linux 6.1, whose overlay takes no lower directories one by one, so that ``mount(2)`` serves.

    Fails on a newer one: then nothing here would test the older path any more, and it has to be forced.
    """
    assert os.uname().release.startswith("6.1.")
    assert not probe.has_lowerdir_append()
    assert probe.has_new_mount_api()


def test_an_overlay_has_its_layers_in_one_string(tmp_path: pathlib.Path) -> None:
    """An overlay of the driver's is one that ``mount(2)`` made, and the driver says so."""
    driver = loading.load_driver("overlay", str(tmp_path / "home"), {})
    driver.create("base")
    driver.seal("base")
    driver.create("layer", "base")
    place = tmp_path / "place"
    place.mkdir()
    mounts.attach(driver.mounts("layer"), str(place))
    found = mountinfo.mounted_at(str(place))
    mounts.detach(str(place))

    assert found is not None
    assert found.option("lowerdir") == str(tmp_path / "home/layers/base/diff")
    assert "mount(2)" in driver.support.engine


def test_layers_are_on_a_disk_of_the_guest(tmp_path: pathlib.Path) -> None:
    """What tests write is on ext4, where the guest's root user may do everything."""
    assert filesystems.fs_type(str(tmp_path)) == "ext4"
    assert os.geteuid() == 0
