"""What can be wrong with a store: its records, its images, its containers."""

from typing import ClassVar

import attrs

from graphdrivers.errors.base import GraphDriverError


@attrs.define(eq=False)
class StoreError(GraphDriverError):
    """Base of the errors about the store's own records."""

    root: str
    reason: str

    template: ClassVar[str] = "store {root!r}: {reason}"
    exit_code: ClassVar[int] = 60


@attrs.define(eq=False)
class LockTimeout(StoreError):
    """Another process held the lock for longer than we were told to wait."""

    remedy: ClassVar[str] = "wait for the other process, or look for it with 'graphdriver doctor'"
    exit_code: ClassVar[int] = 61


@attrs.define(eq=False)
class StoreCorrupt(StoreError):
    """Records on disk that cannot be understood."""

    remedy: ClassVar[str] = "'graphdriver doctor' names what is damaged"
    exit_code: ClassVar[int] = 62


@attrs.define(eq=False)
class StoreVersion(StoreError):
    """The records were written by a newer version."""

    remedy: ClassVar[str] = "upgrade graphdrivers"
    exit_code: ClassVar[int] = 63


@attrs.define(eq=False)
class UnsafeStore(StoreError):
    """Other users could replace what is in the store, or have made a part of it."""

    remedy: ClassVar[str] = "use a --root that belongs to you and that nobody else may write to (chmod go-w)"
    exit_code: ClassVar[int] = 64


@attrs.define(eq=False)
class ImageError(GraphDriverError):
    """Base of the errors about images; ``source`` is the path or reference."""

    source: str
    reason: str

    template: ClassVar[str] = "{source}: {reason}"
    exit_code: ClassVar[int] = 70


@attrs.define(eq=False)
class InvalidReference(ImageError):
    """Not an image reference."""

    remedy: ClassVar[str] = "write it as NAME[:TAG][@DIGEST]"
    exit_code: ClassVar[int] = 71


@attrs.define(eq=False)
class InvalidManifest(ImageError):
    """An index, manifest or configuration that breaks its specification."""

    remedy: ClassVar[str] = "make the image again; 'skopeo inspect' may tell more"
    exit_code: ClassVar[int] = 72


@attrs.define(eq=False)
class BlobNotFound(ImageError):
    """The image names a blob that its source does not hold."""

    remedy: ClassVar[str] = "the image is incomplete: copy it again"
    exit_code: ClassVar[int] = 73


@attrs.define(eq=False)
class RegistryError(ImageError):
    """A registry refused, failed or could not be reached.

    ``status`` is its HTTP status, 0 where it gave none; ``retry_after`` the seconds that it asks to wait.
    """

    status: int = 0
    retry_after: int = 0

    exit_code: ClassVar[int] = 74


@attrs.define(eq=False)
class AuthenticationFailed(RegistryError):
    """A registry wants to know who asks, or does not let this user do it; ``host`` is where to log in."""

    host: str = ""

    remedy: ClassVar[str] = "log in with 'skopeo login {host}' or 'docker login {host}', as a user who may"
    exit_code: ClassVar[int] = 78


@attrs.define(eq=False)
class ImageNotFound(ImageError):
    """The store has no image of this name."""

    template: ClassVar[str] = "no such image: {source!r}{reason}"
    remedy: ClassVar[str] = (
        "'graphdriver images' lists those that there are (NAME alone is NAME:latest); 'import' and 'pull' bring more"
    )
    exit_code: ClassVar[int] = 75


@attrs.define(eq=False)
class ImageInUse(ImageError):
    """Containers stand on the image, or it has other names."""

    remedy: ClassVar[str] = "remove its containers ('graphdriver rm') or its other names ('graphdriver rmi NAME') first"
    exit_code: ClassVar[int] = 76


@attrs.define(eq=False)
class AmbiguousName(ImageError):
    """The beginning of an ID fits several images or containers."""

    remedy: ClassVar[str] = "give more of its ID"
    exit_code: ClassVar[int] = 77


@attrs.define(eq=False)
class UserNotFound(ImageError):
    """The user or group that a process is to run as is not in the image."""

    remedy: ClassVar[str] = "give a user that its /etc/passwd has, or UID:GID"
    exit_code: ClassVar[int] = 79


@attrs.define(eq=False)
class InvalidChange(ImageError):
    """An instruction that cannot change an image's configuration; ``source`` is the instruction."""

    template: ClassVar[str] = "change {source!r}: {reason}"
    remedy: ClassVar[str] = "write it as in a Dockerfile, for example ENV NAME=VALUE"
    exit_code: ClassVar[int] = 87


@attrs.define(eq=False)
class ContainerError(GraphDriverError):
    """Base of the errors about one container; ``container`` is its name."""

    container: str

    template: ClassVar[str] = "container {container!r}"
    exit_code: ClassVar[int] = 80


@attrs.define(eq=False)
class ContainerNotFound(ContainerError):
    """No container of this name or ID."""

    template: ClassVar[str] = "no such container: {container!r}"
    remedy: ClassVar[str] = "'graphdriver ls' lists those that there are"
    exit_code: ClassVar[int] = 81


@attrs.define(eq=False)
class ContainerExists(ContainerError):
    """The name is taken; the container that has it is untouched."""

    template: ClassVar[str] = "the name {container!r} is already in use by another container"
    remedy: ClassVar[str] = "choose another name or remove that container first"
    exit_code: ClassVar[int] = 82


@attrs.define(eq=False)
class ContainerInUse(ContainerError):
    """The container is mounted, or another process works on it."""

    where: str = ""

    template: ClassVar[str] = "container {container!r} is in use{where}"
    remedy: ClassVar[str] = "unmount it first ('graphdriver umount')"
    exit_code: ClassVar[int] = 83


@attrs.define(eq=False)
class CheckpointNotFound(ContainerError):
    """The container has no such checkpoint."""

    point: str
    points: tuple[str, ...] = ()

    template: ClassVar[str] = "container {container!r} has no checkpoint{point}; it has {names}"
    remedy: ClassVar[str] = "'graphdriver checkpoint NAME' makes one"
    exit_code: ClassVar[int] = 84

    @property
    def message(self) -> str:
        """Name the checkpoints that there are."""
        names = ", ".join(repr(point) for point in self.points) or "none"
        point = f" {self.point!r}" if self.point else ""
        return self.template.format(container=self.container, point=point, names=names)


@attrs.define(eq=False)
class CheckpointExists(ContainerError):
    """The container has a checkpoint of this name."""

    point: str

    template: ClassVar[str] = "container {container!r} has a checkpoint {point!r} already"
    remedy: ClassVar[str] = "choose another name for it"
    exit_code: ClassVar[int] = 85


@attrs.define(eq=False)
class InvalidContainerName(ContainerError):
    """A name that cannot be a container's."""

    reason: str

    template: ClassVar[str] = "invalid name {container!r}: {reason}"
    remedy: ClassVar[str] = "use 1 to 128 letters, digits, '_', '.' and '-', a letter or digit first"
    exit_code: ClassVar[int] = 86


@attrs.define(eq=False)
class UnpackerDied(GraphDriverError):
    """A process that unpacked a layer was killed, most often because memory was short."""

    layer: str
    status: int
    """As ``subprocess.Popen.returncode``: negative for a signal."""

    template: ClassVar[str] = "the process that unpacked layer {layer!r} ended unexpectedly (status {status})"
    remedy: ClassVar[str] = "run it again: layers that are complete are kept; where memory is short, with --jobs 1"
    exit_code: ClassVar[int] = 66


@attrs.define(eq=False)
class ObjectNotFound(GraphDriverError):
    """Nothing of this name in the store: no container, no image, no layer."""

    name: str
    kinds: tuple[str, ...]

    template: ClassVar[str] = "no such {kinds}: {name!r}"
    remedy: ClassVar[str] = "'graphdriver ls', 'images' and 'layer ls' list what there is"
    exit_code: ClassVar[int] = 65

    @property
    def message(self) -> str:
        """Say what was looked for."""
        *others, last = self.kinds or ("object",)
        kinds = f"{', '.join(others)} or {last}" if others else last
        return self.template.format(name=self.name, kinds=kinds)
