"""``graphdriver mount``, ``umount`` and ``mounts``: containers, and read-only views of images."""

import contextlib
import errno
import os
import shlex
from collections.abc import Iterator, Sequence

import attrs
import click

from graphdrivers import errors
from graphdrivers.api import naming
from graphdrivers.api.containers import Container
from graphdrivers.api.images import Image
from graphdrivers.api.store import Store
from graphdrivers.cli import completing, output, stores
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.linux import aufs_mount, legacy_mount
from graphdrivers.model import Mount
from graphdrivers.store import mounted
from graphdrivers.store.mounted import Held

_NO_LIMIT = 1 << 30


@click.command(epilog="Example: graphdriver mount web /mnt")
@click.argument("name", shell_complete=completing.mountable)
@click.argument("target", required=False, type=click.Path(file_okay=False))
@click.option("--read-only", is_flag=True, help="A view; an image has no other.")
@global_options
@click.pass_obj
def mount(settings: Settings, name: str, target: str | None, *, read_only: bool) -> None:
    """Mount the container NAME, or the image NAME as a read-only view; print the path.

    Without TARGET it is a folder of the store's own. The mount stays until
    'umount' or the next start of the machine.
    """
    with stores.opened(settings) as store:
        thing = naming.find(store.site, name, (naming.CONTAINER, naming.IMAGE))
        if isinstance(thing, Container):
            place = thing.mount(target, read_only=read_only, keep=True)
        elif isinstance(thing, Image):
            place = store.mount_image(thing, target, keep=True)
            read_only = True
        path, attached = os.fspath(place.path), place.attached
    if settings.json:
        output.document({"path": path, "mounted": attached, "read_only": read_only})
    else:
        output.raw_line(path)


@click.command(epilog="Example: graphdriver umount web")
@click.argument("what", metavar="NAME|PATH", shell_complete=completing.mountable)
@click.option("--lazy", is_flag=True, help="Detach now what is still busy; it goes when its last user does.")
@global_options
@click.pass_obj
def umount(settings: Settings, what: str, *, lazy: bool) -> None:
    """Unmount a container or an image, by its NAME or by the PATH (with a slash) that it is mounted on.

    By name that is all its mounts. Unmounting what is not mounted is fine, and
    said.
    """
    with stores.opened(settings) as store, _busy_told(), _path_told(what):
        undone = _by_path(store, os.path.realpath(what), lazy=lazy) if "/" in what else None
        if undone is None or (not undone and not os.path.lexists(what)):  # an image's name may have slashes
            undone = _by_name(store, what, lazy=lazy)
    if not undone:
        output.message(settings, f"graphdriver: {what!r} is not mounted; nothing to do")
    if settings.json:
        output.document({"name": what, "unmounted": undone})


@contextlib.contextmanager
def _path_told(what: str) -> Iterator[None]:
    """Say how a path is written, where what was taken for a name is one."""
    try:
        yield
    except errors.ObjectNotFound as error:
        if "/" not in what and os.path.lexists(what):
            error.add_note(f"to name the path write ./{what}")
        raise


@contextlib.contextmanager
def _busy_told() -> Iterator[None]:
    """Say what to do about a mount that is busy."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EBUSY:
            error.add_note("'umount --lazy' detaches it now, for whoever comes later")
        raise


def _by_name(store: Store, name: str, *, lazy: bool) -> list[str]:
    thing = naming.find(store.site, name, (naming.CONTAINER, naming.IMAGE))
    if isinstance(thing, Container):
        return list(dict.fromkeys(thing.unmount(lazy=lazy)))
    if isinstance(thing, Image) and thing.top is not None:
        return _release(store, mounted.holders_of(store.site, thing.top), lazy=lazy)
    return []


def _by_path(store: Store, path: str, *, lazy: bool) -> list[str]:
    return _release(store, [held for held in mounted.holders_of(store.site) if held.target == path], lazy=lazy)


def _release(store: Store, held: Sequence[Held], *, lazy: bool) -> list[str]:
    """Let go of mounts that were made to be kept; give their places.

    Raises:
        LayerInUse: a process holds one of them.
    """
    for one in held:
        if one.holder is not None:
            raise errors.LayerInUse(one.layer, f"at {one.target!r} by process {one.holder.pid}")
    for one in held:
        mounted.release(store.site, one, lazy=lazy)
    return list(dict.fromkeys(one.target for one in held))


@click.command(epilog="Example: graphdriver mounts --json web")
@click.argument("name", shell_complete=completing.mountable)
@click.option("--read-only", is_flag=True, help="The plan of a view.")
@global_options
@click.pass_obj
def mounts(settings: Settings, name: str, *, read_only: bool) -> None:
    """Tell how the container or image NAME is mounted, for tools that mount by themselves.

    Mounts nothing. As text these are commands for mount(8), TARGET to be
    replaced; --json gives type, source, options and target below TARGET. Who
    acts on a writable plan keeps the container from being mounted or removed
    meanwhile.
    """
    with stores.opened(settings) as store:
        thing = naming.find(store.site, name, (naming.CONTAINER, naming.IMAGE))
        if isinstance(thing, Container):
            plan = thing.plan(read_only=read_only)
        else:
            plan = store.driver.mounts(stores.layer_of(store, thing), view=True)
    if settings.json:
        output.document([_document(one) for one in plan])
        return
    for one in plan:
        click.echo(command_line(one))


def _document(mount: Mount) -> dict[str, object]:
    options = [key if value is None else f"{key}={value}" for key, value in mount.options]
    return {**attrs.asdict(mount), "options": options}


def command_line(mount: Mount) -> str:
    """Write a mount as a command for mount(8); what a shell or a terminal would obey is quoted."""
    target = f"TARGET/{mount.target}" if mount.target else "TARGET"
    flags = ["ro"] if mount.readonly else []
    if mount.type == "overlay":
        text = [os.fsdecode(legacy_mount.overlay_options(mount.options))]
    elif mount.type == aufs_mount.TYPE:
        text = [os.fsdecode(aufs_mount.option_strings(mount.options, _NO_LIMIT)[0])]
    else:
        text = [key if value is None else f"{key}={value}" for key, value in mount.options]
    options = ",".join(part for part in (*(["bind"] if mount.type == "bind" else []), *flags, *text) if part)
    kind = [] if mount.type == "bind" else ["-t", mount.type]
    words = ["mount", *kind, *(["-o", options] if options else []), mount.source or mount.type, target]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """Quote a word for a shell; with odd characters in bash's ``$'...'``, which a terminal shows as it is."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = (char if char.isprintable() and char not in "\\'" else _escape(char) for char in word)
    return f"$'{''.join(escaped)}'"


def _escape(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
