"""The reference of the command line says what the command line says."""

import importlib.util
import pathlib

DOCS = pathlib.Path(__file__).parent.parent / "docs"


def test_reference_is_up_to_date() -> None:
    """The page is what `make reference` writes now: every command, argument and option, with its help."""
    spec = importlib.util.spec_from_file_location("write_commandline", DOCS / "write_commandline.py")
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)

    assert writer.PAGE.read_text(encoding="utf-8") == writer.page(), "run `make reference`"


def test_every_option_is_explained() -> None:
    """No option of any command is left without a word of help."""
    text = (DOCS / "reference" / "commandline.rst").read_text(encoding="utf-8")

    assert "\n    \n" not in text
