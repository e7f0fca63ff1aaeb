"""A driver as a stranger would write it, for the type checker: mypy reads this file, nothing runs it."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO, assert_type

from graphdrivers import errors
from graphdrivers.driver import Driver
from graphdrivers.model import (
    Applied,
    Capabilities,
    Change,
    ChangeKind,
    DiffID,
    Digest,
    LayerRecord,
    LayerSpec,
    Limits,
    Mount,
    Profile,
    Progress,
    Support,
    Usage,
)


class Minimal(Driver):
    """The least that a driver is made of."""

    name = "minimal"
    contract = 1

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Refuse with one of the three errors that let automatic selection go on."""
        if options:
            raise errors.InvalidOption(cls.name, next(iter(options)), "there are none")
        return Support(Capabilities(mount_free=True), engine=f"nothing in {home}")

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Take every layer."""

    def seal(self, layer: str) -> None:
        """Seal nothing."""

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Plan one bind."""
        return (Mount("bind", f"{self.home}/{layer}", readonly=view),)

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Refuse every tar."""
        raise errors.MalformedArchive(f"{tar}, {headers} and {progress} are ignored", layer, limits.path)

    def changes(self, layer: str) -> Iterator[Change]:
        """Give one change."""
        yield Change(f"/{layer}", ChangeKind.ADDED)

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Refuse."""
        raise errors.LayerNotFound(layer if (profile, source_date_epoch) == (Profile.FULL, None) else "")

    def usage(self, layer: str) -> Usage:
        """Measure nothing."""
        return Usage(bytes=len(layer), inodes=0, disk=0)

    def layers(self) -> Iterator[LayerRecord]:
        """Give nothing."""
        yield from ()

    def remove(self, layer: str) -> None:
        """Remove nothing."""


def seen(done: int) -> None:
    """Take the bytes done so far."""


def use(driver: Driver, tar: BinaryIO) -> None:
    """Use the contract; every result has the type that the documentation names."""
    driver.create("base", parent=None)
    applied = driver.apply("base", tar, limits=Limits(ratio=10), progress=seen)
    assert_type(applied.diff_id, DiffID)
    assert_type([change.kind for change in driver.changes("base")], list[ChangeKind])
    assert_type(driver.mounts("base", view=True)[0].options, tuple[tuple[str, str | None], ...])
    with driver.diff("base", profile=Profile.OCI) as stream:
        assert_type(stream.read(), bytes)
    assert_type(driver.support.capabilities.max_depth, int | None)
    assert_type([record.parent for record in driver.layers()], list[str | None])


def misuse(driver: Driver) -> None:
    """Mistakes that the checker must find; an unused ignore is an error itself."""
    driver.create(b"base")  # type: ignore[arg-type]
    driver.mounts("base", True)  # type: ignore[call-arg]
    Driver("/home", {}, driver.support)  # type: ignore[abstract]
    Mount("bind", "/a").source = "/b"  # type: ignore[misc]
    identity: Digest = "sha256:0"  # type: ignore[assignment]
    assert_type(identity, Digest)
