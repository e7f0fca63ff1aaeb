"""A small storage driver: each layer is a full copy of its parent's tree.

Layout: ``HOME/layers/NAME/`` holds ``root`` (the tree), ``layer.json`` (parent
and depth) and, once sealed, ``sealed``. What is being made or deleted lies in
``HOME/tmp``, so that ``layers`` never holds half of one.
"""

import contextlib
import errno
import json
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from graphdrivers import errors
from graphdrivers.archive.whiteouts import PREFIX
from graphdrivers.linux import copying, durable, filesystems, mountinfo, mounts, trees
from graphdrivers.model import Capabilities, LayerRecord, LayerSpec, Mount, Support, validate_layer_name
from graphdrivers.naivediff import NaiveDiff

_ACL = struct.pack("<I" + "HHI" * 3, 2, 1, 6, 0xFFFFFFFF, 4, 4, 0xFFFFFFFF, 32, 4, 0xFFFFFFFF)
_FILE_CAPABILITY = struct.pack("<5I", 0x02000001, 1, 0, 0, 0)
_MOMENT = 1_000_000_123_456_789


class ExampleDriver(NaiveDiff):
    """One plain directory per layer; `NaiveDiff` finds the changes."""

    name: ClassVar[str] = "example"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open ``home``; see `graphdrivers.driver.Driver`."""
        super().__init__(home, options, support)
        _check(home, options)
        self._layers, self._tmp = os.path.join(home, "layers"), os.path.join(home, "tmp")
        for folder in (home, self._layers, self._tmp):
            _make_private(folder)
        if not os.path.exists(os.path.join(home, "driver.json")):
            _write(home, "driver.json", json.dumps({"version": 1, "driver": self.name, "options": {}}))

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Try on a scratch folder what files can be here."""
        _check(home, options)
        places = (os.path.join(home, "tmp"), home)
        parent = next((place for place in places if os.path.isdir(place)), os.path.dirname(home))
        try:
            staging = durable.Staging(parent)
        except OSError as error:
            reason = f"cannot make a folder in {parent!r}: {error.strerror}"
            raise errors.PrerequisiteMissing(cls.name, reason, "choose a --root that this user can write to") from error
        with staging:
            notes = ("each layer holds a copy of its parent's whole tree",)
            return Support(_tried(staging.path), "full copies", notes)

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Copy the parent's tree beside the layers, then rename the copy into place."""
        if os.path.lexists(self._path(layer)):
            raise errors.LayerExists(layer)
        if parent is not None and not self.record(parent).sealed:
            raise errors.LayerNotSealed(parent)
        if spec.size is not None:
            raise errors.NotSupported(self.name, "it cannot limit the size of a layer", "create it without a size")
        depth = 1 if parent is None else self._read(parent)[1] + 1
        with durable.Staging(self._tmp) as staging, _opened(self._layers) as layers:
            made = os.path.join(staging.path, "layer")
            root = os.path.join(made, "root")
            os.makedirs(root, 0o700)
            self._fill(root, parent)
            _write(made, "layer.json", json.dumps({"parent": parent, "depth": depth}))
            try:
                durable.rename_noreplace(staging.fd, "layer", layers, layer)
            except FileExistsError:
                raise errors.LayerExists(layer) from None

    def seal(self, layer: str) -> None:
        """Put a mark file beside the tree."""
        if not self.record(layer).sealed:
            self._refuse_mounted(layer)
            self._rest(layer)
            _write(self._path(layer), "sealed", "")

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Give the layer's directory, read-only in a view where this process can mount."""
        if self.record(layer).sealed and not view:
            raise errors.LayerSealed(layer)
        readonly = view and self.support.capabilities.readonly_views
        return (Mount("bind", self._path(layer, "root"), readonly=readonly),)

    def layers(self) -> Iterator[LayerRecord]:
        """Read every ``layer.json``, the deepest layers first."""
        found = []
        for name in os.listdir(self._layers):
            with contextlib.suppress(errors.LayerNotFound):  # another process has removed it since
                record = self.record(name)
                found.append((-self._read(name)[1], name, record))
        return iter([record for *_, record in sorted(found, key=lambda one: one[:2])])

    def record(self, layer: str) -> LayerRecord:
        """Read one ``layer.json``."""
        return LayerRecord(layer, self._read(layer)[0], os.path.lexists(self._path(layer, "sealed")))

    def remove(self, layer: str) -> None:
        """Rename the layer into ``tmp``, then delete it there."""
        if os.path.lexists(self._path(layer)):
            self._refuse_mounted(layer)
            with durable.discarding(self._path(layer), self._tmp):
                pass  # out of sight; the deletion follows

    def settle(self, layer: str | None = None) -> None:
        """Delete what dead processes left in ``tmp``; put names reserved for whiteouts aside."""
        if layer is not None:
            if not self.record(layer).sealed and not mountinfo.users_of(self._path(layer, "root")):
                self._rest(layer)
            return
        for name in durable.Staging.leftovers(self._tmp):
            _delete(self._tmp, name)

    def _rest(self, layer: str) -> None:
        """Move names that would mean deletions in a tar out of the tree, which somebody may have written to."""
        moved = []
        with _opened(self._path(layer, "root")) as root:
            for path, folder, name in _reserved(root):
                before = os.fstat(folder)
                place = tempfile.mkdtemp(prefix="reserved-", dir=self._path(layer))
                os.rename(name, os.path.join(os.fsencode(place), name), src_dir_fd=folder)
                os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
                moved.append("/" + os.fsdecode(path))
        if moved:
            raise errors.ReservedNameError(layer, tuple(moved))

    def _path(self, layer: str, *parts: str) -> str:
        return os.path.join(self._layers, validate_layer_name(layer), *parts)

    def _read(self, layer: str) -> tuple[str | None, int]:
        """Give a layer's parent and its depth."""
        try:
            with open(self._path(layer, "layer.json"), encoding="ascii") as file:
                found = json.load(file)
            return found["parent"], int(found["depth"])
        except FileNotFoundError:
            raise errors.LayerNotFound(layer) from None
        except (ValueError, KeyError, TypeError) as error:
            raise errors.StoreCorrupt(self.home, f"layer.json of {layer!r}: {error}") from None

    def _fill(self, root: str, parent: str | None) -> None:
        if parent is not None:
            with _opened(self._path(parent, "root")) as source, _opened(root) as target:
                copying.copy_tree(source, target)
            return
        if self.support.capabilities.ownership:
            os.chown(root, 0, 0)
        os.chmod(root, 0o755)  # noqa: S103 - as the contract has it; the home is closed to others
        os.utime(root, ns=(0, 0))

    def _refuse_mounted(self, layer: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # another process has removed it since: nobody uses it
            for user in mountinfo.users_of(self._path(layer, "root")):
                raise errors.LayerInUse(layer, f"at {user.target!r}")


def _reserved(root: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Give path, open directory and name of each entry that begins with ``.wh.``, outermost only."""
    with trees.DirStack(root) as stack:
        for inside in stack.visit():
            with os.scandir(stack.fd) as entries:
                listed = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
            for name in (name for name, _ in listed if name.startswith(PREFIX)):
                yield stack.path(name), stack.fd, name
            inside += [name for name, is_folder in listed if is_folder and not name.startswith(PREFIX)]


def _check(home: str, options: Mapping[str, str]) -> None:
    """Refuse any option, and another driver's home."""
    for key in options:
        raise errors.InvalidOption(ExampleDriver.name, key, "it is unknown; this driver has none")
    with contextlib.suppress(FileNotFoundError), open(os.path.join(home, "driver.json"), encoding="utf-8") as file:
        found = json.load(file)["driver"]
        if found != ExampleDriver.name:
            raise errors.PriorDriverState(home, (found,), ExampleDriver.name)


def _tried(folder: str) -> Capabilities:
    """Find out what files in an empty folder can be and carry."""
    file = os.path.join(folder, "file")
    device = os.path.join(folder, "device")
    with open(file, "xb"), _opened(folder) as opened:
        reflink = filesystems.supports_reflink(opened)
    os.utime(file, ns=(_MOMENT, _MOMENT))
    kept = os.stat(file).st_mtime_ns
    steps = (10**power for power in range(10))
    devices = _allowed(lambda: os.mknod(device, stat.S_IFCHR, os.makedev(1, 3)))
    return Capabilities(
        mount_free=True,
        user_xattrs=_allowed(lambda: os.setxattr(file, "user.probe", b"")),
        trusted_xattrs=_allowed(lambda: os.setxattr(file, "trusted.probe", b"")),
        security_xattrs=_allowed(lambda: os.setxattr(file, "security.capability", _FILE_CAPABILITY)),
        posix_acls=_allowed(lambda: os.setxattr(file, "system.posix_acl_access", _ACL)),
        ownership=all([_allowed(lambda: os.chown(file, 65534, 65534)), _allowed(lambda: os.chown(file, 0, 0))]),
        devices=devices,
        char_0_0=devices and _allowed(lambda: os.mknod(device + "0", stat.S_IFCHR, 0)),
        readonly_views=_view_is_readonly(folder),
        rename_directories=True,
        hard_links_across_layers=True,
        reflink=reflink,
        name_max=os.pathconf(folder, "PC_NAME_MAX"),
        time_resolution=next((step for step in steps if kept == _MOMENT // step * step), 10**9),
    )


def _allowed(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}:
            raise
        return False
    return True


def _view_is_readonly(folder: str) -> bool:
    with mounts.opened((Mount("bind", folder, readonly=True),)) as view:
        try:
            os.mkdir("written", dir_fd=view)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return True
    return False


def _make_private(folder: str) -> None:
    """Make a directory that only its owner enters, whatever ACL the parent passes on."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
        for name in os.listxattr(folder):
            if name.startswith("system.posix_acl"):
                os.removexattr(folder, name)
        os.chmod(folder, 0o700)


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)


def _write(folder: str, name: str, text: str) -> None:
    with _opened(folder) as opened:
        durable.write_atomic(opened, name, text.encode("ascii"), durable=False)


def _delete(folder: str, name: str) -> None:
    with _opened(folder) as opened:
        trees.remove_tree(opened, os.fsencode(name))
