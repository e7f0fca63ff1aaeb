"""The error tree: it is what its drawing says, and every error pickles and fits on one line."""

import errno
import pathlib
import pickle
import re

import attrs
import pytest

from graphdrivers import errors

ODD = "a\nb\r\t{c}\x1b[1m\udcff'\" é"
SAMPLES: dict[object, object] = {str: ODD, int: 7, tuple[str, ...]: (ODD, "plain")}
NAMED = [getattr(errors, name) for name in errors.__all__]
ALL = [c for c in NAMED if issubclass(c, errors.GraphDriverError)]


def sample(cls: type[errors.GraphDriverError], plain: frozenset[str] = frozenset()) -> errors.GraphDriverError:
    """Make an error whose fields, but the plain ones, have odd values of their types."""
    fields = attrs.fields_dict(cls).items()
    return cls(**{name: name if name in plain else SAMPLES[field.type] for name, field in fields})


def leaves() -> set[str]:
    """Name the errors that no other derives from."""
    return {cls.__name__ for cls in ALL if not any(issubclass(c, cls) and c is not cls for c in ALL)}


@pytest.mark.parametrize("cls", ALL)
def test_pickles(cls: type[errors.GraphDriverError]) -> None:
    """An error comes through pickling (a process pool) with its fields and text."""
    error = sample(cls)

    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(again) is cls
    assert again.fields() == error.fields()
    assert str(again) == str(error)


@pytest.mark.parametrize("cls", ALL)
def test_one_line(cls: type[errors.GraphDriverError]) -> None:
    """The text of an error is one line, whatever bytes a name holds, and can do nothing to a terminal."""
    text = str(sample(cls))

    assert text.isprintable()


def test_asked_for_driver() -> None:
    """The name of a driver that nobody offers comes from outside and is shown quoted."""
    assert str(errors.DriverNotFound(ODD)).isprintable()


@pytest.mark.parametrize("cls", ALL)
def test_says_what_it_is(cls: type[errors.GraphDriverError]) -> None:
    """Every class has a sentence of its own, a message and an exit code that shells can tell from a signal's."""
    assert "__doc__" in vars(cls)
    assert "template" in vars(cls) or cls.template is not errors.GraphDriverError.template
    assert 1 <= cls.exit_code < 126


def test_exit_codes_differ() -> None:
    """A script can tell every error by its exit code; 2 is left to wrong usage."""
    codes = [cls.exit_code for cls in ALL]

    assert len(set(codes)) == len(codes)
    assert 2 not in codes


def test_no_checkpoint_at_all() -> None:
    """Where none was asked for by name, none is quoted."""
    assert (
        errors.CheckpointNotFound("web", "", ("created",)).message
        == "container 'web' has no checkpoint; it has 'created'"
    )
    assert errors.CheckpointNotFound("web", "one").message == "container 'web' has no checkpoint 'one'; it has none"


def test_page_of_errors() -> None:
    """The documentation has each class with its exit code, what it means and its fields, in the order of the codes."""
    page = (pathlib.Path(__file__).parent.parent / "docs/reference/errors.rst").read_text(encoding="utf-8")
    rows = re.findall(r"\* - (\d+)\n     - :exc:`~graphdrivers.errors.(\w+)`\n     - (.*)\n     - (.*)\n", page)
    expected = [
        (
            str(cls.exit_code),
            cls.__name__,
            (cls.__doc__ or "").splitlines()[0],
            ", ".join(f"``{field.name}``" for field in attrs.fields(cls)) or "-",
        )
        for cls in sorted(ALL, key=lambda cls: cls.exit_code)
    ]

    assert rows == expected


def drawn() -> dict[str, str]:
    """Read the drawing: each class with the class that it hangs from."""
    parents: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in re.findall(r"^    (?:[│├└ ]|[A-Z]).*$", errors.__doc__ or "", re.MULTILINE):
        depth = re.search(r"[A-Z]", line).start()  # type: ignore[union-attr]
        listed = re.match(r"(?:[A-Z]\w+(?:, ?)?)+", line[depth:])
        for name in re.findall(r"\w+", listed.group()) if listed else []:
            parents[name] = above.get(max((d for d in above if d < depth), default=-1), "")
            above = {d: n for d, n in above.items() if d < depth} | {depth: name}
    return parents


def test_drawing_is_the_tree() -> None:
    """Each class hangs where the drawing has it; only bases that are never raised themselves are left out of it."""
    parents = drawn()

    assert parents["GraphDriverError"] == ""
    for name, parent in parents.items():
        if parent and name != "SyscallError":
            assert issubclass(getattr(errors, name), getattr(errors, parent)), f"{name} is not a {parent}"
    assert leaves() <= set(parents)
    assert {name for name in parents if name != "OSError"} <= {cls.__name__ for cls in ALL} | {"SyscallError"}


def test_only_unavailable_lets_auto_go_on() -> None:
    """Exactly three errors mean that the next driver may be tried."""
    meaning_next = {cls.__name__ for cls in ALL if issubclass(cls, errors.DriverUnavailable)}

    assert meaning_next & leaves() == {"IncompatibleFilesystem", "NotSupported", "PrerequisiteMissing"}


def test_syscall_error() -> None:
    """A failed system call keeps its errno, names the call and both paths, and pickles."""
    error = errors.SyscallError(errno.EXDEV, "renameat2", b"a\nb", "c")

    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert (again.errno, again.syscall, again.filename, again.filename2) == (errno.EXDEV, "renameat2", b"a\nb", "c")
    assert str(again) == str(error) == "renameat2(b'a\\nb', 'c'): Invalid cross-device link"
