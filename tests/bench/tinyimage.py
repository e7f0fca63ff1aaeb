"""An OCI layout of two layers with a handful of files, to measure with when nobody looks at the figures."""

import hashlib
import io
import json
import os
import pathlib
import platform
import tarfile

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OCI = "application/vnd.oci.image"


def tiny_image(folder: pathlib.Path) -> pathlib.Path:
    """Write the layout into a new folder; give it back."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    tars = [_tar({"etc/motd": b"one\n", "etc/issue": b"draft\n"}), _tar({"etc/motd": b"two\n", "etc/.wh.issue": b""})]
    layers = [_blob(folder, f"{_OCI}.layer.v1.tar", tar) for tar in tars]
    config: dict[str, object] = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    described = _document(folder, f"{_OCI}.config.v1+json", config)
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": described,
        "layers": layers,
    }
    index = {"schemaVersion": 2, "manifests": [_document(folder, f"{_OCI}.manifest.v1+json", manifest)]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return folder


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid = len(content), os.geteuid(), os.getegid()
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _document(folder: pathlib.Path, media_type: str, fields: dict[str, object]) -> dict[str, object]:
    return _blob(folder, media_type, json.dumps(fields).encode())


def _blob(folder: pathlib.Path, media_type: str, content: bytes) -> dict[str, object]:
    name = hashlib.sha256(content).hexdigest()
    (folder / "blobs" / "sha256" / name).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(content)}
