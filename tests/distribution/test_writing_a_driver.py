"""The page for authors of drivers, done as it says: from an empty folder to a plugin that passes the suite."""

import pathlib

from docs_sessions import ROOT, blocks, run, steps

PAGE = "docs/howto/writing-a-driver.rst"
SHELL = ("console", "sh")


def test_the_page_shows_commands_in_no_other_way() -> None:
    """What looks like a command stands in a block that is run."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")

    assert text.count("code-block:: console") + text.count("code-block:: sh") == len(
        [block for block in blocks(PAGE) if block.language in SHELL]
    )
    assert "::\n\n" not in text


def test_the_example_is_short() -> None:
    """It is as long as the page says."""
    driver = ROOT / "plugins" / "example" / "graphdrivers_example" / "driver.py"

    assert "less than 150 lines" in (ROOT / PAGE).read_text(encoding="utf-8")
    assert driver.read_text(encoding="utf-8").count("\n") < 150


def test_the_page(author: dict[str, str], tmp_path: pathlib.Path) -> None:
    """Each command succeeds in its turn, and prints what the page shows."""
    session = [step for block in blocks(PAGE) if block.language in SHELL for step in steps(block)]

    assert {"pip", "graphdriver", "pytest", "copier", "tox"} <= {step.command.split()[0] for step in session}
    run(session, tmp_path, author)
