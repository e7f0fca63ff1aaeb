"""Descriptors: what a manifest says about a blob, the media types, and platforms.

Source: OCI image-spec, ``descriptor.md``, ``media-types.md`` and ``image-index.md``
(heading *Platform variants*); Docker's image manifest version 2, schema 2.
"""

import platform as machine
from collections.abc import Mapping, Sequence
from typing import Self

import attrs

from graphdrivers import errors
from graphdrivers.images.documents import Document
from graphdrivers.model import Digest, validate_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        DOCKER_LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
)
DISTANT_LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
"""Layers that may be kept elsewhere, at the descriptor's ``urls``; those are never fetched."""

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
_ATTESTATION = "vnd.docker.reference.type"

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
"""Where the name that ``uname -m`` gives is not Go's, which images use."""

_IMPLIED_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


@attrs.frozen
class Platform:
    """For which machine an image is, in Go's words (``linux/arm64``, ``linux/arm/v7``)."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        """Write it as ``--platform`` takes it."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def here(cls) -> Self:
        """Give this machine's."""
        name = machine.machine()
        return cls("linux", *_ARCHITECTURES.get(name, (name, "")))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[OS/]ARCHITECTURE[/VARIANT]``; the system is Linux where it is left out.

        Raises:
            InvalidReference: an empty part, or too many.
        """
        parts = text.split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        if not all(parts) or len(parts) > 3:
            raise errors.InvalidReference(text, "not a platform; write it as OS/ARCHITECTURE[/VARIANT]")
        return cls(*parts)

    def fitness(self, wanted: Self) -> int:
        """Tell how well an image for this platform runs on ``wanted``: -1 not at all, else higher is better.

        Variants are levels of one instruction set: a machine runs its own and
        the lower ones, never a higher.
        """
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return -1
        level, limit = self.level, wanted.level
        if level is None or limit is None:
            return 0 if self.variant == wanted.variant else -1
        return level if level <= limit else -1

    @property
    def level(self) -> int | None:
        """Number of the variant, implied ones included; ``None`` for variants that are no levels."""
        variant = self.variant or _IMPLIED_VARIANT.get(self.architecture, "v0")
        return int(variant[1:]) if variant[:1] == "v" and variant[1:].isascii() and variant[1:].isdigit() else None


@attrs.frozen
class Descriptor:
    """One blob as an index or a manifest names it."""

    media_type: str
    digest: Digest
    size: int
    """Bytes, exactly."""
    annotations: Mapping[str, str] = attrs.field(factory=dict, eq=False)
    platform: Platform | None = None
    artifact_type: str = ""
    """What a manifest is of that is no image."""
    urls: tuple[str, ...] = ()
    """Where else the blob is kept. Only shown: fetching from there would give our requests to strangers."""

    @classmethod
    def read(cls, document: Document) -> Self:
        """Check and take over a descriptor.

        Raises:
            InvalidManifest: a field is missing or of the wrong type, the digest is none.
        """
        return cls(
            media_type=document.text("mediaType"),
            digest=read_digest(document, document.text("digest")),
            size=document.number("size"),
            annotations=document.text_map("annotations"),
            platform=read_platform(document.child("platform")) if document.has("platform") else None,
            artifact_type=document.text("artifactType", ""),
            urls=document.texts("urls"),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What the image is called: containerd's full name first, then OCI's (often just a tag)."""
        found = (self.annotations.get(CONTAINERD_NAME, ""), self.annotations.get(REF_NAME, ""))
        return tuple(name for name in found if name)

    @property
    def is_beside(self) -> bool:
        """True for what stands beside images in an index: attestations of BuildKit, artifacts, unknown kinds.

        A kind that is unknown must not be an error (``image-index.md``, property ``mediaType``).
        """
        return (
            _ATTESTATION in self.annotations
            or self.platform == Platform("unknown", "unknown")
            or self.media_type not in MANIFESTS | INDEXES
            or self.artifact_type not in CONFIGS | {""}
        )


def images_among(entries: Sequence[Descriptor]) -> Sequence[Descriptor]:
    """Leave out of an index what stands beside images; unknown kinds stay where there is nothing else, to be named."""
    images = [entry for entry in entries if not entry.is_beside]
    return images or [entry for entry in entries if entry.media_type not in MANIFESTS | INDEXES]


def read_digest(document: Document, text: str) -> Digest:
    """Return a digest found in ``document``, checked: it will become part of a path.

    Raises:
        InvalidManifest: it is none.
    """
    try:
        return validate_digest(text)
    except errors.InvalidName as error:
        document.refuse(f"has the digest {text!r}: {error.reason}")


def read_platform(document: Document) -> Platform:
    """Take over ``os``, ``architecture`` and ``variant`` of an index entry or a configuration.

    Raises:
        InvalidManifest: one is missing or not a word.
    """
    platform = Platform(document.text("os"), document.text("architecture"), document.text("variant", ""))
    if not str(platform).isprintable():
        document.refuse("has a platform that cannot be printed")
    return platform
