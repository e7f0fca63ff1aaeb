"""The public names are written down here, each resolves, and importing the package costs nothing."""

import pydoc
import subprocess
import sys

import pytest

import graphdrivers
from graphdrivers import archive

PUBLIC = ["Container", "Driver", "Image", "Store", "errors", "list_drivers", "load_driver", "open_store"]


def test_names_are_these() -> None:
    """A public name comes or goes only together with this list."""
    assert sorted(graphdrivers.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_name_resolves(name: str) -> None:
    """Every promised name leads to a documented object."""
    assert getattr(graphdrivers, name).__doc__


def test_errors_can_be_caught_by_their_place() -> None:
    """``graphdrivers.errors.NAME`` works without an import of its own, whatever was imported before."""
    assert "graphdrivers.errors" in loaded_by("import graphdrivers; graphdrivers.errors.ContainerNotFound")


def test_looking_around() -> None:
    """Interpreters that complete names, and ``help``, find the public ones."""
    assert set(PUBLIC) <= set(dir(graphdrivers))
    assert "open_store" in pydoc.render_doc(graphdrivers, renderer=pydoc.plaintext)


def test_unknown_name() -> None:
    """A name that was never promised is an AttributeError that names it, as for any module."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = graphdrivers.no_such_name


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter and name the modules that it loaded."""
    program = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before), sep='\\n')"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


def test_import_is_cheap() -> None:
    """Importing the package loads nothing of its own rooms and none of its dependencies."""
    loaded = loaded_by("import graphdrivers")

    assert "graphdrivers" in loaded
    assert not {name for name in loaded if name.startswith("graphdrivers.")}
    assert not loaded & {"attr", "attrs", "click", "ctypes", "isal", "rich", "stevedore", "zstandard"}


def test_contract_is_light() -> None:
    """The contract pulls in errors and model, no driver, no tar code and no command line."""
    loaded = loaded_by("import graphdrivers; graphdrivers.Driver")

    ours = {name.split(".")[1] for name in loaded if name.startswith("graphdrivers.")}
    assert ours == {"driver", "errors", "model"}
    assert not loaded & {"click", "isal", "rich", "stevedore", "zstandard"}


def test_archive_loads_its_modules_on_first_use() -> None:
    """The package of the archive room brings in nothing; a module that is asked for comes."""
    assert {name for name in loaded_by("from graphdrivers import archive") if "archive" in name} == {
        "graphdrivers.archive"
    }
    assert "graphdrivers.archive.compare" in loaded_by("from graphdrivers import archive; archive.compare.compare")


@pytest.mark.parametrize("name", archive.__all__)
def test_archive_module_resolves(name: str) -> None:
    """Every module that the room promises is there."""
    assert archive.__getattr__(name).__name__ == f"graphdrivers.archive.{name}"


def test_archive_has_no_unknown_module() -> None:
    """A name that was never promised is an AttributeError that names it."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = archive.no_such_name


@pytest.mark.parametrize("module", ["backends.vfs", "backends.overlay.driver", "backends.aufs.driver", "api.store"])
def test_opening_loads_no_archive_code(module: str) -> None:
    """Drivers and stores come without what unpacks, compares and compresses."""
    loaded = loaded_by(f"import graphdrivers.{module}")

    late = {"apply", "attributes", "compare", "compression", "fields", "produce", "reader", "restore"}
    assert not loaded & {f"graphdrivers.archive.{name}" for name in late}
    assert not loaded & {"isal", "zstandard"}
