"""Images on their way out: committed, saved, sent to registries and fetched from them, bundled."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest
from clirun import CommandLine, run_program
from registries import PASSWORD, USER, Registry, htpasswd, running_registry

from graphdrivers import errors


@pytest.fixture
def web(any_store: CommandLine) -> CommandLine:
    """A store with a changed container ``web``."""
    any_store("create", "debian:12", "--name", "web")
    place = pathlib.Path(any_store("mount", "web").out.rstrip("\n"))
    (place / "etc/new").write_text("new\n")
    any_store("umount", "web")
    return any_store


def test_commit(web: CommandLine) -> None:
    """A new image of one layer more; its ID on stdout. With SOURCE_DATE_EPOCH the same again."""
    ran = web("commit", "web", "example:1", "-a", "me", "-m", "why", "-c", "ENV A=b")
    (found,) = web("inspect", "example:1").json
    env = {"SOURCE_DATE_EPOCH": "1700000000"}
    twice = {run_program(*web.globals, "commit", "web", env=env).out for _ in range(2)}

    assert ran.out == f"{found['Id']}\n"
    assert ran.err.splitlines()[-1] == "Status: Committed example:1"
    assert len(found["RootFS"]["Layers"]) == 3
    assert (found["Author"], found["Config"]["Env"]) == ("me", ["A=b"])
    assert web("diff", "debian:12", "example:1").out == "C /etc\nA /etc/new\n"
    assert web("history", "example:1", "--json").json[0]["Comment"] == "why"
    assert len(twice) == 1


@pytest.mark.parametrize("options", [[], ["--format", "docker"], ["--compress", "gzip"], ["--compress", "zstd"]])
def test_saved_images_come_back(store: CommandLine, tmp_path: pathlib.Path, options: list[str]) -> None:
    """The same image in another store, layer by layer; through a pipe too."""
    ran = store("save", "debian:12", *options)
    store("save", "debian:12", *options, "-o", str(tmp_path / "saved.tar"))
    other = CommandLine(tmp_path / "other")
    other("import", str(tmp_path / "saved.tar"))

    assert (tmp_path / "saved.tar").read_bytes() == ran.out.encode(errors="surrogateescape")
    assert other("images", "-q").out == store("images", "-q").out
    assert other("import", "-", stdin=(tmp_path / "saved.tar").read_bytes()).err.count("Already exists") == 2


def test_several_images_in_one_file(web: CommandLine, tmp_path: pathlib.Path) -> None:
    """What they share is there once; one of them is brought in by --reference."""
    web("commit", "web", "example:1")
    web("save", "debian:12", "example:1", "-o", str(tmp_path / "both.tar"))
    with tarfile.open(tmp_path / "both.tar") as tar:
        blobs = [name for name in tar.getnames() if name.startswith("blobs/sha256/")]
    other = CommandLine(tmp_path / "other")
    refused = other("import", str(tmp_path / "both.tar"), check=False)
    other("import", str(tmp_path / "both.tar"), "--reference", "example:1")

    assert len(blobs) == 3 + 2 * 2
    assert refused.code == errors.InvalidReference.exit_code
    assert other("--json", "images").json[0]["RepoTags"] == ["example:1"]


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> Iterator[Registry]:
    """A registry on the loopback that wants a login."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running_registry(folder, auth=htpasswd(folder)) as running:
        yield running


def test_to_a_registry_and_back(store: CommandLine, registry: Registry, tmp_path: pathlib.Path) -> None:
    """Push and pull as Docker tells them; again, nothing has to go."""
    name, creds = f"{registry.host}/team/debian:12", f"--creds={USER}:{PASSWORD}"
    first = store("push", "debian:12", name, creds)
    again = store("push", "debian:12", name, creds, "--json").json
    other = CommandLine(tmp_path / "other")
    pulled = other("pull", name, creds)

    assert first.err.splitlines()[0] == f"The push refers to repository [{registry.host}/team/debian]"
    assert first.err.count(": Pushed") == 2
    assert first.out.startswith("sha256:")
    assert [one["Status"] for one in again["Layers"]] == ["exists", "exists"]
    assert pulled.err.splitlines()[0] == f"12: Pulling from {registry.host}/team/debian"
    assert pulled.err.splitlines()[-1] == f"Status: Downloaded newer image for {name}"
    assert other("images", "-q").out == store("images", "-q").out
    assert f"Image is up to date for {name}" in other("pull", name, creds).err


def test_layers_are_mounted_from_where_they_were(
    store: CommandLine, registry: Registry, tmp_path: pathlib.Path
) -> None:
    """What a registry has in another repository is not sent, whatever the image is called here."""
    creds = f"--creds={USER}:{PASSWORD}"
    store("push", "debian:12", f"{registry.host}/team/debian:12", creds)
    pushed = store("push", "debian:12", f"{registry.host}/team/deb:12", creds, "--json").json
    other = CommandLine(tmp_path / "other")
    image = other("pull", f"{registry.host}/team/deb@{pushed['Digest']}", creds).out.strip()
    pulled = other("push", image, f"{registry.host}/else:1", creds, "--json")

    assert [one["Status"] for one in pushed["Layers"]] == ["mounted", "mounted"]
    assert [one["Status"] for one in pulled.json["Layers"]] == ["mounted", "mounted"]
    assert pulled.json["Digest"] == pushed["Digest"]


def test_pulled_by_digest(store: CommandLine, registry: Registry, tmp_path: pathlib.Path) -> None:
    """A tag before a digest names nothing: nobody has looked what it means in the registry."""
    name, creds = f"{registry.host}/debian", f"--creds={USER}:{PASSWORD}"
    digest = store("push", "debian:12", f"{name}:12", creds).out.strip()
    other = CommandLine(tmp_path / "other")
    pulled = other("pull", f"{name}:no-such-tag@{digest}", creds)
    again = store("push", "debian:12", f"{name}@{digest}", creds)

    assert pulled.out == store("images", "-q", "--no-trunc").out
    assert pulled.err.splitlines()[-1] == f"Status: Downloaded newer image for {name}:no-such-tag@{digest}"
    assert other("--json", "images").json[0]["RepoTags"] == []
    assert again.err.splitlines()[-1].startswith(f"{digest}: digest: {digest} size: ")


def test_status_names_what_was_asked_for(store: CommandLine, registry: Registry, tmp_path: pathlib.Path) -> None:
    """An image that has other names already is told by the one that was given, or pulled."""
    name, creds = f"{registry.host}/debian", f"--creds={USER}:{PASSWORD}"
    for tag in ("1", "2"):
        store("push", "debian:12", f"{name}:{tag}", creds)
    other = CommandLine(tmp_path / "other")
    told = [other("pull", f"{name}:{tag}", creds).err.splitlines()[-1] for tag in ("1", "2", "1")]
    store("save", "debian:12", "-o", str(tmp_path / "saved.tar"))
    loaded = other("import", "--name", "zoo:1", str(tmp_path / "saved.tar"))

    assert told == [
        f"Status: Downloaded newer image for {name}:1",
        f"Status: Downloaded newer image for {name}:2",
        f"Status: Image is up to date for {name}:1",
    ]
    assert loaded.err.splitlines()[-1] == "Status: Loaded image zoo:1"


def test_logins(store: CommandLine, registry: Registry, tmp_path: pathlib.Path) -> None:
    """From the file that the environment or --authfile names; without one it is refused, saying how to log in."""
    name = f"{registry.host}/debian:12"
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {registry.host: {"username": USER, "password": PASSWORD}}}))
    command = [*store.globals, "push", "debian:12", name]
    without = run_program(*command, env={"HOME": str(tmp_path)})
    by_variable = run_program(*command, env={"REGISTRY_AUTH_FILE": str(auth)})
    by_option = run_program(*command, "--authfile", str(auth))
    insisting = run_program(*command, "--authfile", str(auth), "--tls-verify")

    assert (without.code, without.err.count("\n")) == (errors.AuthenticationFailed.exit_code, 2)
    assert "login" in without.err
    assert (by_variable.code, by_option.code) == (0, 0)
    assert (insisting.code, "Traceback" in insisting.err) == (errors.RegistryError.exit_code, False)


def test_push_without_a_place(store: CommandLine) -> None:
    """An image named by its ID does not say where to."""
    ran = store("push", store("images", "-q").out.strip(), check=False)

    assert ran.code == 2
    assert "add REF" in ran.err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_bundle(web: CommandLine, tmp_path: pathlib.Path) -> None:
    """A folder that a runtime takes; the container is mounted in it until it is unmounted."""
    folder = tmp_path / "bundle"
    ran = web("bundle", "web", str(folder), "-e", "A=b", "--volume", f"{tmp_path}:/mnt:ro", "--", "/bin/sh", "-c", "id")
    config = json.loads((folder / "config.json").read_text())

    assert ran.out == f"{folder}\n"
    assert config["process"]["args"] == ["/bin/sh", "-c", "id"]
    assert "A=b" in config["process"]["env"]
    assert next(one for one in config["mounts"] if one["destination"] == "/mnt")["options"][-1] == "ro"
    assert (folder / "rootfs/etc/new").read_text() == "new\n"
    web("umount", str(folder / "rootfs"))
    assert not list((folder / "rootfs").iterdir())
    shutil.rmtree(folder)
    assert web("rm", "web").out == "web\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_bundle_of_a_mounted_container(web: CommandLine, tmp_path: pathlib.Path) -> None:
    """One that is mounted elsewhere is refused, and the same command works once it is not."""
    folder = tmp_path / "bundle"
    command = ("bundle", "web", str(folder), "--", "/bin/sh")
    web("mount", "web")
    ran = web(*command, check=False)
    assert (ran.code, ran.err.count("\n")) == (errors.ContainerInUse.exit_code, 1)
    assert not (folder / "config.json").exists()

    web("umount", "web")
    web(*command)
    assert json.loads((folder / "config.json").read_text())["process"]["args"] == ["/bin/sh"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_bundle_without_mounting(store: CommandLine, tmp_path: pathlib.Path) -> None:
    """Root that may not mount, as in other containers, is given the tree where it lies, as everybody else is."""
    store("create", "debian:12", "--name", "web")
    arguments = [*store.globals, "bundle", "web", str(tmp_path / "bundle"), "--", "/bin/sh"]
    unable = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    command = [*unable, sys.executable, "-m", "graphdrivers", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    root = json.loads((tmp_path / "bundle/config.json").read_text())["root"]["path"]
    assert pathlib.Path(root, "etc/motd").exists()
    assert not (tmp_path / "bundle/rootfs").exists()
    store("umount", "web")
