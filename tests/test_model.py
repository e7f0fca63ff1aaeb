"""The values that pass between rooms: what is a name, what is a digest, and that nothing can be changed."""

import contextlib
import copy
import os
import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphdrivers import errors, model

NAMES = st.binary(min_size=1, max_size=model.NAME_MAX).map(os.fsdecode)
REFUSED = ["", ".", "..", "/", "a/b", "../x", "a\0b", "x" * 201, "é" * 101, "\ud800"]


@given(NAMES)
def test_a_name_is_one_component(name: str) -> None:
    """A name is accepted unchanged exactly if it is one real component of a path."""
    if name in {".", ".."} or "/" in name or "\0" in name:
        with pytest.raises(errors.InvalidName):
            model.validate_layer_name(name)
    else:
        assert model.validate_layer_name(name) == name
        assert os.path.normpath(os.path.join("/home", name)) == f"/home/{name}"


@given(st.text())
def test_any_text_is_accepted_or_refused(text: str) -> None:
    """No text, lone surrogates included, gets anything but acceptance or InvalidName."""
    with contextlib.suppress(errors.InvalidName):
        assert model.validate_layer_name(text) == text


@pytest.mark.parametrize("name", REFUSED)
def test_refused_names(name: str) -> None:
    """Empty, dots, separators, NUL, over-long (in bytes) and unencodable names are refused, with the name."""
    with pytest.raises(errors.InvalidName) as caught:
        model.validate_layer_name(name)

    assert caught.value.name == name


@pytest.mark.parametrize("name", [None, 7, b"bytes", object()])
def test_names_are_text(name: object) -> None:
    """What is no text at all is refused too, not used."""
    with pytest.raises(errors.InvalidName):
        model.validate_layer_name(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("check", "reason", "link", "complaint"),
    [
        ("test_trees.py", "why", "https://bugs.example/1", "a check is FILE::FUNCTION"),
        ("::test_owners", "why", "https://bugs.example/1", "a check is FILE::FUNCTION"),
        ("test_trees.py::", "why", "https://bugs.example/1", "a check is FILE::FUNCTION"),
        ("test_trees.py::test_owners", " ", "https://bugs.example/1", "it gives no reason"),
        ("test_trees.py::test_owners", "why", "", "it gives no link but ''"),
        ("test_trees.py::test_owners", "why", "see the docs", "it gives no link but 'see the docs'"),
        ("test_trees.py::test_owners", "why", "https://", "it gives no link but 'https://'"),
    ],
)
def test_a_deviation_can_be_followed_up(check: str, reason: str, link: str, complaint: str) -> None:
    """A deviation without a check, a reason or a link cannot be made."""
    with pytest.raises(errors.InvalidDeviation, match=re.escape(complaint)) as caught:
        model.Deviation(check, reason, link)

    assert caught.value.check == check


@given(st.one_of(st.from_regex(r"\Asha256:[0-9a-f]{64}\Z"), st.from_regex(r"\Asha512:[0-9a-f]{128}\Z")))
def test_digests(digest: str) -> None:
    """Well-formed sha256 and sha512 digests are accepted unchanged."""
    assert model.validate_digest(digest) == digest


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "a" * 64, f"sha256:{'A' * 64}", f"sha256:{'a' * 63}", f"sha256:{'a' * 64}\n", f"md5:{'a' * 32}"],
)
def test_refused_digests(digest: str) -> None:
    """Other algorithms, upper case, a wrong length and a trailing newline are refused."""
    with pytest.raises(errors.InvalidName):
        model.validate_digest(digest)


def test_letters() -> None:
    """Changes have Docker's letters."""
    assert [kind.letter for kind in model.ChangeKind] == ["A", "C", "D"]


def test_capabilities_default_to_cannot() -> None:
    """A driver that claims nothing can do nothing special."""
    claimed = {name: value for name, value in attrs.asdict(model.Capabilities()).items() if value}

    assert claimed == {"name_max": 255, "time_resolution": 1}


@pytest.mark.parametrize("value", [model.Mount("bind", "/a"), model.Usage(1, 2, 3), model.Limits(), model.LayerSpec()])
def test_values_are_frozen(value: attrs.AttrsInstance) -> None:
    """A value that was handed over cannot be changed behind its receiver's back."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(type(value))[0].name, None)

    assert hash(value) == hash(copy.copy(value))
