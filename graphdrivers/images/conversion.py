"""What an image's configuration says about running it, checked and converted field by field.

Everything in it is content of a stranger. It decides about the process inside
the container and nothing outside: what a runtime would take for instructions
to itself is withheld.

Source: OCI image-spec ``conversion.md`` and ``config.md``.
"""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from graphdrivers.images.documents import Document
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.images.run_options import path_problem, text_problem

_ANNOTATION = "org.opencontainers.image."
_PROPERTIES = {"os": "os", "architecture": "architecture", "variant": "variant", "os.version": "os.version"}
_PROPERTIES |= {"author": "author", "created": "created"}
_SETTINGS = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal")
_KERNEL_TREES = ("/proc/", "/sys/", "/dev/")

OBEYED = (
    "run.oci.",
    "module.wasm.",
    "krun.",
    "org.systemd.",
    "org.criu.",
    "dev.gvisor.",
    "io.podman.",
    "io.containers.",
    "io.containerd.",
    "io.kubernetes.",
    "io.katacontainers.",
    "com.hooks.",
)
"""Beginnings of annotations, in lower case, that runtimes and their hooks are known to obey.

``run.oci.seccomp.plugins`` alone loads a library of the host into crun, ``run.oci.hooks.stdout`` appends to a file of
the host, ``org.systemd.property.*`` sets properties of the systemd unit. Source: crun(1), heading *EXTENSIONS*; runc
``docs/systemd.md`` and ``docs/checkpoint-restore.md``; gVisor ``runsc/specutils``; Kata Containers
``docs/how-to/how-to-set-sandbox-config-kata.md``; oci-seccomp-bpf-hook(1).
"""


@attrs.frozen
class Settings:
    """An image's settings for running it."""

    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    """As written; empty where the image has none."""
    volumes: tuple[str, ...]
    """Sorted, as written: see `places_for_volumes`."""
    annotations: Mapping[str, str]
    """Labels, and the implicit annotations that no label contradicts."""
    withheld: tuple[str, ...]
    """Labels that runtimes would obey (`OBEYED`), sorted: they are not among the annotations."""


def read_settings(config: ImageConfig, source: str) -> Settings:
    """Check and take over what a configuration says about running its image.

    ``source`` is the image, for messages.

    Raises:
        InvalidManifest: a field is of the wrong type, could be read in two
            ways, or has what cannot be handed to a process: NUL, a path that
            is relative or climbs with ``..``, an ``Env`` without ``=``.
    """
    whole = Document(source, "the configuration", config.fields)
    _refuse_folded(whole, ("config",))
    settings = whole.child("config") if whole.has("config") else Document(source, "its config", {})
    _refuse_folded(settings, _SETTINGS)
    annotations, withheld = _annotations(whole, settings)
    return Settings(
        entrypoint=_texts(settings, "Entrypoint"),
        cmd=_texts(settings, "Cmd"),
        env=_env(settings),
        cwd=_cwd(settings),
        user=_text(settings, "User"),
        volumes=_keys(settings, "Volumes"),
        annotations=annotations,
        withheld=withheld,
    )


def places_for_volumes(settings: Settings, source: str) -> tuple[str, ...]:
    """Give the volumes that something may be mounted on.

    Those inside ``/proc``, ``/sys`` and ``/dev`` are left out: a mount there
    could uncover what is masked (and images for systemd name ``/sys/fs/cgroup``).

    Raises:
        InvalidManifest: one is relative, the root itself, or climbs with ``..`` (CVE-2022-23648).
    """
    document = Document(source, "the configuration: config", {})
    for path in settings.volumes:
        reason = path_problem(path) or ("is the root" if _plain(path) == "/" else "")
        if reason:
            document.refuse(f"has the volume {path!r}, which {reason}")
    return tuple(path for path in settings.volumes if not _plain(path).startswith(_KERNEL_TREES))


def _refuse_folded(document: Document, known: Iterable[str]) -> None:
    """Refuse a known key in another case: Go takes it for the key, and most of what runs images is Go."""
    folded = {key.casefold(): key for key in known}
    for key in document.fields:
        if folded.get(key.casefold(), key) != key:
            document.refuse(f"has {key!r}, which some read as {folded[key.casefold()]!r}")


def _text(document: Document, key: str) -> str:
    """Take over a string; a missing one is empty."""
    text = document.text(key, "")
    _check(document, key, (text,))
    return text


def _texts(document: Document, key: str) -> tuple[str, ...]:
    texts = document.texts(key)
    _check(document, key, texts)
    return texts


def _check(document: Document, key: str, texts: Iterable[str]) -> None:
    """Refuse text that no process can be given."""
    for text in texts:
        if reason := text_problem(text):
            document.refuse(f"has {text!r} in {key!r}, which {reason}")


def _env(settings: Document) -> tuple[str, ...]:
    env = _texts(settings, "Env")
    for entry in env:
        if not entry.partition("=")[0] or "=" not in entry:
            settings.refuse(f"has {entry!r} in 'Env', which is not NAME=VALUE")
    return env


def _cwd(settings: Document) -> str:
    """Take over the working directory; ``/proc/self/fd/N`` was a way out to the host (CVE-2024-21626)."""
    cwd = _text(settings, "WorkingDir") or "/"
    reason = path_problem(cwd)
    if _plain(cwd).startswith("/proc/"):
        reason = reason or "is not a place to work in"
    if reason:
        settings.refuse(f"has the WorkingDir {cwd!r}, which {reason}")
    return cwd


def _plain(path: str) -> str:
    """Write a path without doubled slashes and ``.``, with one slash at the end."""
    return "".join(f"{part}/" for part in ("", *(part for part in path.split("/") if part not in {"", "."})))


def _keys(settings: Document, key: str) -> tuple[str, ...]:
    """Take over a set, which image configurations write as an object of empty objects."""
    value = settings.fields.get(key)
    if value is None:
        return ()
    if not isinstance(value, dict):
        settings.refuse(f"has {key!r} that is not an object")
    keys = tuple(sorted(value))
    _check(settings, key, keys)
    return keys


def _annotations(whole: Document, settings: Document) -> tuple[dict[str, str], tuple[str, ...]]:
    """Convert what becomes annotations; also gives the labels that do not."""
    features: Sequence[str] = _texts(whole, "os.features")
    implicit = {name: _text(whole, key) for key, name in _PROPERTIES.items()}
    implicit["os.features"] = ",".join(features)
    implicit["exposedPorts"] = ",".join(_keys(settings, "ExposedPorts"))
    implicit["stopSignal"] = _text(settings, "StopSignal")
    annotations = {_ANNOTATION + name: value for name, value in implicit.items() if value}
    labels = settings.text_map("Labels")
    _check(settings, "Labels", (*labels, *labels.values()))
    withheld = {key for key in labels if not key or key.casefold().startswith(OBEYED)}
    annotations |= {key: value for key, value in labels.items() if key not in withheld}
    return annotations, tuple(sorted(withheld))
