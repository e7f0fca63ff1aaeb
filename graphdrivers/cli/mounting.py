"""``graphdriver layer mount`` and ``layer umount``: plans performed, and undone."""

import contextlib
import os

import click

from graphdrivers import errors
from graphdrivers.cli import completing, home, output, owners
from graphdrivers.cli.home import Home
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.linux import mountinfo, mounts
from graphdrivers.model import validate_layer_name
from graphdrivers.store.mounted import mount_point_made


@click.command(epilog='Example: cd "$(graphdriver layer mount web)"')
@click.argument("name", shell_complete=completing.layers)
@click.argument("target", required=False, type=click.Path(file_okay=False))
@click.option("--view", is_flag=True, help="Read-only; the only way to mount a sealed layer.")
@global_options
@click.pass_obj
def mount(settings: Settings, name: str, target: str | None, *, view: bool) -> None:
    """Mount the layer NAME with everything below it; print the path.

    Without TARGET that is ROOT/mounts/NAME, or the layer's own folder where the
    driver keeps whole trees and nothing has to be mounted. The mount stays
    until 'layer umount'.
    """
    if not view:
        owners.refuse_own(settings.root, name)
    with home.opened(settings) as place, place.locked(name):
        place.check_filled(name)
        path, mounted = _mount(place, name, target, view=view)
    if settings.json:
        output.document({"path": path, "mounted": mounted})
    else:
        output.raw_line(path)


def _mount(place: Home, name: str, target: str | None, *, view: bool) -> tuple[str, bool]:
    """Perform the plan; give the path, and whether it is a mount.

    Raises:
        LayerInUse: it is mounted writable already, or something is mounted at the default place.
    """
    plan = place.driver.mounts(name, view=view)
    plain = mounts.plain_directory(plan)
    if plain is not None and target is None:
        return plain, False
    where = place.mount_point(name) if target is None else os.path.realpath(target)
    writable = [] if view else [one for one in home.mounted(place.driver, name) if "ro" not in one.options]
    used = [one.target for one in writable]
    if target is None and mountinfo.mounted_at(where):
        used.append(where)
    if used:
        raise errors.LayerInUse(name, f"at {used[0]}")
    with mount_point_made(where) if target is None else contextlib.nullcontext():
        mounts.attach(plan, where)
    return where, True


@click.command(epilog="Example: graphdriver layer umount web")
@click.argument("what", metavar="NAME|PATH", shell_complete=completing.layers)
@click.option("--lazy", is_flag=True, help="Detach now what is still busy; it goes when its last user does.")
@global_options
@click.pass_obj
def umount(settings: Settings, what: str, *, lazy: bool) -> None:
    """Unmount a layer, by its NAME or by the PATH (with a slash) that it is mounted on.

    Unmounting what is not mounted is fine, and said.
    """
    with home.opened(settings) as place:
        name = _layer_at(place, os.path.realpath(what)) if "/" in what else validate_layer_name(what)
        with place.locked(name) if name else contextlib.nullcontext():
            targets = [os.path.realpath(what)] if "/" in what else _targets(place, name or "")
            undone = [target for target in targets if _unmount(target, lazy=lazy)]
            if name:
                place.driver.settle(name)
                with contextlib.suppress(OSError):  # not there, or (a view was on top) still mounted
                    os.rmdir(place.mount_point(name))
    if not undone:
        output.message(settings, f"graphdriver: {what!r} is not mounted; nothing to do")
    if settings.json:
        output.document({"name": name, "unmounted": undone})


def _unmount(target: str, *, lazy: bool) -> bool:
    """Detach the topmost mount of a path; False where there is none."""
    if mountinfo.mounted_at(target) is None:
        return False
    mounts.detach(target, lazy=lazy)
    return True


def _targets(place: Home, name: str) -> list[str]:
    """Say where a layer is mounted, the latest mount first; its default place is always looked at.

    Raises:
        LayerNotFound: no layer of this name.
    """
    found = [one.target for one in home.mounted(place.driver, name)]
    return list(dict.fromkeys([*reversed(found), place.mount_point(name)]))


def _layer_at(place: Home, path: str) -> str | None:
    """Find which layer of this root is mounted at a path; ``None`` where that is something else."""
    found = mountinfo.mounted_at(path)
    if found is None:
        return None
    named = {*found.source.split("/"), *found.root.split("/"), *(found.option("upperdir") or "").split("/")}
    for record in place.driver.layers():
        if record.name in named and any(one.target == path for one in home.mounted(place.driver, record.name)):
            return record.name
    return None
