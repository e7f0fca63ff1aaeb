"""Makes OCI layouts and docker archives by hand, right or wrong in any detail."""

import hashlib
import io
import json
import os
import pathlib
import tarfile
from typing import Any

OCI = "application/vnd.oci.image."
INDEX, MANIFEST, CONFIG, LAYER = (
    f"{OCI}index.v1+json",
    f"{OCI}manifest.v1+json",
    f"{OCI}config.v1+json",
    f"{OCI}layer.v1.tar",
)
REF_NAME = "org.opencontainers.image.ref.name"

Json = dict[str, Any]


def sha256(text: bytes) -> str:
    """Digest of bytes."""
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def layer_tar(name: str, content: bytes = b"content") -> bytes:
    """Make a layer tar of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Layout:
    """An OCI layout in a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Start with an empty index."""
        self.folder = folder
        self.entries: list[Json] = []
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def path(self, descriptor: Json) -> pathlib.Path:
        """Where a blob is."""
        return self.folder / "blobs" / "sha256" / str(descriptor["digest"]).removeprefix("sha256:")

    def blob(self, content: bytes | Json, media_type: str, **more: object) -> Json:
        """Add a blob; returns its descriptor."""
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        descriptor = {"mediaType": media_type, "digest": sha256(text), "size": len(text), **more}
        self.path(descriptor).write_bytes(text)
        return descriptor

    def config(self, *layers: bytes, architecture: str = "amd64", **more: Any) -> Json:
        """Add a configuration."""
        rootfs = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}
        fields = {"os": "linux", "architecture": architecture, "rootfs": rootfs, **more}
        return self.blob(fields, CONFIG)

    def manifest(self, *layers: bytes, config: Json | None = None, architecture: str = "amd64", **more: Any) -> Json:
        """Add a manifest of uncompressed layers, with a configuration and whatever else is to stand in it."""
        fields = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config or self.config(*layers, architecture=architecture),
            "layers": [self.blob(layer, LAYER) for layer in layers],
            **more,
        }
        return self.blob(fields, MANIFEST)

    def index(self, *manifests: Json, **more: object) -> Json:
        """Add an index as a blob."""
        return self.blob({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests), **more}, INDEX)

    def add(self, descriptor: Json, name: str | None = None, **more: object) -> None:
        """Put a descriptor into ``index.json``."""
        annotations = {"annotations": {REF_NAME: name}} if name else {}
        self.entries.append({**descriptor, **annotations, **more})
        self.write_index({"schemaVersion": 2, "manifests": self.entries})

    def write_index(self, fields: object) -> None:
        """Write ``index.json`` with any content."""
        text = fields if isinstance(fields, str) else json.dumps(fields)
        (self.folder / "index.json").write_text(text)


class Archive:
    """A ``docker save`` archive in a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Start with no image."""
        folder.mkdir()
        self.folder = folder
        self.entries: list[Json] = []

    def add(self, layers: dict[str, bytes], *tags: str, config_name: str | None = None, **more: object) -> None:
        """Add an image whose layers have the given names."""
        rootfs = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers.values()]}
        config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs, "comment": repr(tags)}).encode()
        name = config_name or f"{sha256(config)[7:]}.json"
        (self.folder / name).write_bytes(config)
        for path, layer in layers.items():
            (self.folder / path).parent.mkdir(exist_ok=True)
            if not os.path.lexists(self.folder / path):
                (self.folder / path).write_bytes(layer)
        self.entries.append({"Config": name, "RepoTags": list(tags) or None, "Layers": list(layers), **more})
        (self.folder / "manifest.json").write_text(json.dumps(self.entries))


def packed(folder: pathlib.Path, *, prefix: str = "") -> pathlib.Path:
    """Pack a folder into a tar beside it."""
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(os.listdir(folder)):
            tar.add(folder / name, prefix + name)
    return path
