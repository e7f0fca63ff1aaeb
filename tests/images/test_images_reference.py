"""References are read as other tools read them, and platforms chosen as the specification says."""

import platform as machine

import pytest

from graphdrivers import errors
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.reference import Reference, matches
from graphdrivers.images.selection import choose_platform

DIGEST = "sha256:" + "0123456789abcdef" * 4

GOOD = {
    "debian": ("docker.io/library/debian:latest", "debian:latest"),
    "debian:12": ("docker.io/library/debian:12", "debian:12"),
    "team/app": ("docker.io/team/app:latest", "team/app:latest"),
    "index.docker.io/debian": ("docker.io/library/debian:latest", "debian:latest"),
    "localhost/app": ("localhost/app:latest", "localhost/app:latest"),
    "example.org/app": ("example.org/app:latest", "example.org/app:latest"),
    "example.org:5000/a/b__c/d-e.f:v1_2": ("example.org:5000/a/b__c/d-e.f:v1_2",) * 2,
    "[2001:db8::1]:5000/app:1": ("[2001:db8::1]:5000/app:1",) * 2,
    "HOST/app": ("HOST/app:latest", "HOST/app:latest"),
    f"debian@{DIGEST}": (f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
    f"debian:12@{DIGEST}": (f"docker.io/library/debian:12@{DIGEST}", f"debian:12@{DIGEST}"),
    "library/debian": ("docker.io/library/debian:latest", "debian:latest"),
}
BAD = (
    "", ":", "@", "a:", "a@", ":tag", "/a", "a/", "a//b", "A", "a/B", "a:-x", "a:" + "t" * 129, "a b", "a\n", "a:b\n",
    "-a", "a-", "a..b", "a___b", "../a", "a/../b", "é", "a" * 256, "0" * 64, f"a@{DIGEST}0", "a@sha256:xyz",
    "a@md5:" + "0" * 32, "-host.org/a", "host.org:port/a", "[::1/a", "a:b:c", "http://host.org/a",
)  # fmt: skip


@pytest.mark.parametrize(("text", "full", "familiar"), [(text, *forms) for text, forms in GOOD.items()])
def test_reference_is_completed(text: str, full: str, familiar: str) -> None:
    """Short forms are completed, and both forms parse to the same again."""
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar) == (full, familiar)
    assert Reference.parse(full) == reference == Reference.parse(familiar)


@pytest.mark.parametrize("text", BAD)
def test_bad_reference_is_refused(text: str) -> None:
    """What breaks the grammar is an InvalidReference."""
    with pytest.raises(errors.InvalidReference):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("debian", True),
        ("debian:latest", True),
        ("docker.io/library/debian:latest", True),
        ("some text", True),
        (DIGEST, True),
        (f"debian@{DIGEST}", True),
        (f"ubuntu@{DIGEST}", False),
        ("debian:12", False),
        ("some", False),
        (f"debian@{DIGEST[:-1]}0", False),
        ("", False),
    ],
)
def test_matching(wanted: str, fits: bool) -> None:  # noqa: FBT001 - a table's column
    """A name fits literally or in full; with a digest both have to fit."""
    assert matches(wanted, ["debian:latest", "some text"], [DIGEST]) is fits


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], 1),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], 1),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/mips/odd", ["linux/mips", "linux/mips/odd"], 1),
    ],
)
def test_platform_choice(wanted: str, offered: list[str], chosen: int) -> None:
    """The highest variant that the machine can run wins; of equals the first."""
    assert choose_platform("image", [Platform.parse(text) for text in offered], Platform.parse(wanted)) == chosen


def test_no_platform_lists_what_there_is() -> None:
    """The error names the platforms that can be had."""
    there = [Platform.parse("linux/amd64"), Platform.parse("windows/amd64"), Platform.parse("linux/amd64")]
    with pytest.raises(
        errors.InvalidReference, match="no image for linux/s390x in it, only for linux/amd64, windows/amd64"
    ):
        choose_platform("image", there, Platform.parse("s390x"))


@pytest.mark.parametrize("text", ["", "/", "linux/", "/amd64", "linux/amd64/", "a/b/c/d"])
def test_bad_platform_is_refused(text: str) -> None:
    """A platform has one to three parts."""
    with pytest.raises(errors.InvalidReference):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("name", "expected"), [("x86_64", "linux/amd64"), ("armv7l", "linux/arm/v7"), ("s390x", "linux/s390x")]
)
def test_this_machine(monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    """The kernel's names become Go's."""
    monkeypatch.setattr(machine, "machine", lambda: name)
    assert str(Platform.here()) == expected
