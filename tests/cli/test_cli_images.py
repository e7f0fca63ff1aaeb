"""Images from the command line: in, listed, told about, named and removed."""

import io
import json
import pathlib
import tarfile

import pytest
from clirun import CommandLine, run_program
from layouts import sha256
from storeimages import BASE, TOP, debian, layer, layout

from graphdrivers import errors
from graphdrivers.cli import failures

STEPS = [
    {"created": "2024-02-01T00:00:00.123456789Z", "created_by": "ADD rootfs \x1b[31m\n/"},
    {"created_by": "CMD", "empty_layer": True},
    {"created": 7, "created_by": ["RUN"], "comment": "bui\udcffld"},
]


def test_import_tells_each_layer(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """A line for each layer, digest and status on stderr; only the ID on stdout. Again, nothing has to come."""
    source = debian(tmp_path)
    manifest = json.loads((source / "index.json").read_text())["manifests"][0]["digest"]
    short = [sha256(layer(files))[7:19] for files in (BASE, TOP)]
    first = cli("import", str(source))
    again = cli("import", str(source))

    assert first.err.splitlines() == [
        *(f"{one}: Pull complete" for one in short),
        f"Digest: {manifest}",
        "Status: Loaded image debian:12",
    ]
    assert again.err.splitlines()[:2] == [f"{one}: Already exists" for one in short]
    assert again.err.splitlines()[-1] == "Status: Image is up to date for debian:12"
    assert first.out == again.out
    assert first.out.removeprefix("sha256:").strip() in cli("images", "-q", "--no-trunc").out


def test_import_of_several_layers_at_a_time(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """--jobs changes nothing but the time: each layer is told once, lowest first, and the image is the same."""
    source = str(layout(tmp_path / "image", *(layer({f"dir/{number}": b"x" * number}) for number in range(4))))
    several = cli("import", source, "--jobs", "3")
    lines = [line for line in several.err.splitlines() if line.endswith(": Pull complete")]
    assert len(lines) == 4
    assert len(set(lines)) == 4
    assert cli("import", source, "--jobs", "1").out == several.out
    assert cli("check", "--deep").code == 0

    wrong = run_program(*cli.globals, "import", source, "--jobs", "0")
    assert wrong.code == 2
    assert "--jobs" in wrong.err


def test_import_as_json_and_quiet(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """One document that says what came; with -q nothing but the ID."""
    source = str(debian(tmp_path))
    found = cli("--json", "import", source).json
    quiet = cli("-q", "import", source, "--name", "a:1", "--name", "b:2")

    assert found["RepoTags"] == ["debian:12"]
    assert [one["Status"] for one in found["Layers"]] == ["complete", "complete"]
    assert [one["DiffID"] for one in found["Layers"]] == [sha256(layer(files)) for files in (BASE, TOP)]
    assert (quiet.out, quiet.err) == (f"{found['Id']}\n", "")
    assert cli("--json", "inspect", "b:2").json[0]["RepoTags"] == ["a:1", "b:2", "debian:12"]


def test_import_from_stdin(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """A layout in a tar that comes from a pipe; a bare tag does not become a name of the pipe."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(debian(tmp_path), ".")
    ran = cli("import", "-", stdin=buffer.getvalue())

    assert cli("images").out.splitlines()[1].split()[:2] == ["<none>", "<none>"]
    cli("tag", ran.out.strip()[7:19], "debian:stable")
    assert cli("history", "debian:stable").out.count("\n") == 3


def test_import_of_a_root_file_system(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """A plain tar becomes an image of one layer, with what --change and --message say."""
    tar = layer({"etc/passwd": b"root:x:0:0::/:/bin/sh\n", "bin/sh": b"#!", "usr/lib/os-release": b"ID=x\n"})
    path = tmp_path / "rootfs.tar"
    path.write_bytes(tar)
    cli("import", str(path), "--name", "base", "-c", 'CMD ["/bin/sh"]', "-m", "made by hand")
    found = cli("inspect", "base").json[0]

    assert found["RootFS"] == {"Type": "layers", "Layers": [sha256(tar)]}
    assert found["Config"]["Cmd"] == ["/bin/sh"]
    assert "made by hand" in cli("history", "base", "--json").out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["{source}", "--name", "no name"], errors.InvalidReference.exit_code),
        (["{source}", "--platform", "//"], errors.InvalidReference.exit_code),
        (["{source}", "--reference", "nope"], errors.InvalidReference.exit_code),
        (["{source}", "--change", "CMD x"], failures.USAGE),
        (["{source}", "--durability", "much"], failures.USAGE),
        (["{source}", "--kind", "tarball"], failures.USAGE),
        (["{source}/oci-layout"], errors.MalformedArchive.exit_code),
        (["{source}/blobs"], errors.InvalidManifest.exit_code),
        (["/nonexistent/image.tar"], failures.SYSTEM),
    ],
)
def test_wrong_imports(cli: CommandLine, tmp_path: pathlib.Path, arguments: list[str], code: int) -> None:
    """Each mistake is one line on stderr with an exit code of its own, and nothing comes in."""
    source = debian(tmp_path)
    ran = run_program(*cli.globals, "import", *(text.format(source=source) for text in arguments))

    assert ran.code == code, ran
    assert (ran.out, ran.err.count("\n")) == ("", 1)
    assert ran.err.startswith("graphdriver: ")
    assert cli("images").out == ""


def test_images_fit_80_columns(store: CommandLine) -> None:
    """A row for each name, in Docker's columns; JSON with Docker's names."""
    store("tag", "debian:12", "registry.example.org/base:1")
    lines = store("images").out.splitlines()
    found = store("images", "--json").json

    assert lines[0].split("  ")[0] == "REPOSITORY"
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines[1:]} == {"debian", "registry.example.org/base"}
    assert store("images", "-q").out == f"{found[0]['Id'][7:19]}\n"
    assert set(found[0]) == {"Id", "RepoTags", "RepoDigests", "Created", "Size"}
    assert [name.partition("@sha256:")[0] for name in found[0]["RepoDigests"]] == [
        "debian",
        "registry.example.org/base",
    ]


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ("debian", ["debian 12", "debian stable"]),
        ("docker.io/library/debian", ["debian 12", "debian stable"]),
        ("debian:12", ["debian 12"]),
        ("example.org:5000/base", ["example.org:5000/base 12"]),
        ("base", []),
        ("debian:nope", []),
        ("deb", []),
    ],
)
def test_images_of_a_name(store: CommandLine, asked: str, rows: list[str]) -> None:
    """As in Docker a repository means all its tags, in tables, lists of IDs and JSON."""
    store("tag", "debian:12", "debian:stable")
    store("tag", "debian:12", "example.org:5000/base:12")
    lines = store("images", asked).out.splitlines()[1:]
    documents = store("--json", "images", asked).json

    assert [" ".join(line.split()[:2]) for line in lines] == rows
    assert [name.rpartition(":")[::2] for one in documents for name in one["RepoTags"]] == [
        tuple(row.split()) for row in rows
    ]
    assert len(store("images", "-q", asked).out.splitlines()) == bool(rows)


def test_images_of_a_name_that_cannot_be(store: CommandLine) -> None:
    """It is told, for it is no name of anything."""
    assert store("images", "UPPER", check=False).code == errors.InvalidReference.exit_code


def test_history_shows_what_strangers_wrote(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """The last step first, sizes from the layers; control characters are escaped, wrong types are nothing."""
    cli("import", str(debian(tmp_path, history=STEPS)))
    lines = cli("history", "debian:12").out.splitlines()
    full = cli("history", "debian:12", "--no-trunc").out
    found = cli("history", "debian:12", "--json").json

    assert [one["CreatedBy"] for one in found] == ["", "CMD", STEPS[0]["created_by"]]
    assert [one["Size"] for one in found] == [14, 0, 214]
    assert found[1]["Id"] is None
    assert [one["Id"] for one in found[::2]] == [sha256(layer(files)) for files in (TOP, BASE)]
    assert lines[0].split() == ["LAYER", "CREATED", "SIZE", "CREATED", "BY"]
    assert "\\x1b[31m\\x0a" in lines[3]
    assert "\x1b" not in full
    assert max(map(len, lines)) <= 80


def test_removing_one_of_several_names(store: CommandLine) -> None:
    """It is only taken away; the last one takes the image and its layers, each told by its ChainID."""
    image = store("inspect", "debian:12").json[0]
    store("tag", "debian:12", "debian:stable")
    first = store("rmi", "debian:12")
    second = store("rmi", "debian:stable")

    assert first.out == "Untagged: debian:12\n"
    assert second.out.splitlines()[:2] == ["Untagged: debian:stable", f"Deleted: {image['Id']}"]
    assert second.out.splitlines()[3] == f"Deleted: {image['RootFS']['Layers'][0]}"
    assert store("images").out == ""
    assert store("layer", "ls").out == ""


def test_removing_by_id(store: CommandLine) -> None:
    """With several names that needs --force, which takes all of them."""
    short = store("images", "-q").out.strip()
    store("tag", "debian:12", "debian:stable")
    refused = store("rmi", short, check=False)
    forced = store("rmi", "--force", "--json", short)

    assert refused.code == errors.ImageInUse.exit_code
    assert "--force" in refused.err
    assert forced.json["done"][0]["Untagged"] == ["debian:12", "debian:stable"]
    assert store("images", "--json").json == []


def test_removing_what_a_container_stands_on(store: CommandLine) -> None:
    """It is refused, naming the container; --force takes the name alone away."""
    store("create", "debian:12", "--name", "web")
    refused = store("rmi", "debian:12", check=False)
    forced = store("rmi", "-f", "debian:12")

    assert refused.code == errors.ImageInUse.exit_code
    assert "'web'" in refused.err
    assert forced.out == "Untagged: debian:12\n"
    assert store("ls", "--json").json[0]["ImageName"] == store("images", "-q").out.strip()


def test_one_of_several_is_missing(store: CommandLine) -> None:
    """The others are removed all the same; the exit code is that of the first failure."""
    ran = store("rmi", "nope", "debian:12", check=False)
    told = store("rmi", "--json", "no1", "no2", check=False)

    assert ran.code == errors.ImageNotFound.exit_code
    assert ran.err.count("\n") == 1
    assert "Untagged: debian:12" in ran.out
    assert [one["type"] for one in told.json["errors"]] == ["ImageNotFound", "ImageNotFound"]


def test_inspect_has_dockers_names(any_store: CommandLine) -> None:
    """What scripts read of an image: the same paths as in Docker's answer."""
    (found,) = any_store("inspect", "debian:12").json

    assert found["RootFS"] == {"Type": "layers", "Layers": [sha256(layer(files)) for files in (BASE, TOP)]}
    assert found["GraphDriver"]["Name"] == any_store.driver
    assert found["GraphDriver"]["Data"]
    assert found["Os"] == "linux"
    assert found["Size"] == 14 + 214
    assert found["Id"] == any_store("inspect", found["Id"][7:14]).json[0]["Id"]


def test_inspect_of_nothing(store: CommandLine) -> None:
    """A name that means nothing is one line, and one document; so is one of another kind."""
    ran = store("inspect", "--json", "debian:12", "no\nthing", check=False)

    assert ran.code == errors.ObjectNotFound.exit_code
    assert ran.json["error"]["type"] == "ObjectNotFound"
    assert ran.err.count("\n") == 1
    assert "no such container, image or layer" in ran.err
    assert store("inspect", "--type", "container", "debian:12", check=False).code == errors.ObjectNotFound.exit_code


def test_beginnings_of_ids(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """One that fits several images is refused."""
    for number in range(17):  # two of them begin with the same digit
        cli("import", str(layout(tmp_path / f"i{number}", layer({"f": b"%d" % number}))))
    digits = [one["Id"][7] for one in cli("images", "--json").json]
    twice = next(digit for digit in digits if digits.count(digit) > 1)

    assert cli("inspect", twice, check=False).code == errors.AmbiguousName.exit_code
