"""What is told to those who type what other programs take."""

import re

import click
import pytest
from clirun import CommandLine, run_program

from graphdrivers.cli import failures, habits
from graphdrivers.cli.main import application


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["ps"], "here that is 'ls'"),
        (["load", "-i", "image.tar"], "here that is 'import'"),
        (["help", "import"], "'graphdriver COMMAND --help'"),
        (["IMAGES"], "did you mean 'images'?"),
        (["inpsect", "web"], "did you mean 'inspect'?"),
        (["layer", "unpack"], "here that is 'apply'"),
        (["images", "--format", "x"], "here that is '--json', and jq"),
        (["images", "-a"], "here that is the default"),
        (["pull", "--tls-verify=false", "base"], "here that is '--no-tls-verify'"),
        (["push", "--no-tls-verfy"], "did you mean '--no-tls-verify'?"),
    ],
)
def test_what_was_meant_is_told(typed: list[str], told: str) -> None:
    """In the one line of the mistake."""
    ran = run_program(*typed)

    assert ran.code == failures.USAGE
    assert told in ran.err
    assert ran.err.count("\n") == 1


def test_what_is_like_nothing_is_not_guessed_at() -> None:
    """A wrong guess is worse than none."""
    for typed in (["frobnicate"], ["images", "--filtre"], ["gc", "-a"]):
        assert "did you mean" not in run_program(*typed).err
        assert "here that is" not in run_program(*typed).err


def test_advice_names_what_there_is() -> None:
    """No habit hides a command, and each command of this program that is named exists."""
    context = click.Context(application)
    layer = application.get_command(context, "layer")
    assert isinstance(layer, click.Group)
    below = layer.list_commands(context)
    known = application.list_commands(context)

    assert not set(habits.COMMANDS) & set(known)
    assert not set(habits.LAYER_COMMANDS) & set(below)
    for words, commands in ((habits.COMMANDS, known), (habits.LAYER_COMMANDS, below)):
        named = {name for advice in words.values() for name in re.findall(r"'([a-z]+)'", advice)}
        assert named <= set(commands)


def test_a_mistake_that_click_tells_in_several_lines() -> None:
    """It is one line here, without escapes."""
    ran = run_program("completion")

    assert "Choose from: bash, zsh, fish;" in ran.err
    assert ran.err.count("\n") == 1


def test_a_path_that_is_taken_for_a_name(store: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a path is written is told where there is one of this name."""
    monkeypatch.chdir(store.root)

    assert "write ./store" in store("umount", "store", check=False).err
    assert "write ./" not in store("umount", "nothing", check=False).err


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("docker://debian:12", "'graphdriver pull' fetches from a registry"),
        ("debian:12", "'graphdriver pull' fetches from a registry"),
        ("oci-archive:image.tar", "without 'oci-archive:'"),
    ],
)
def test_import_of_a_reference(cli: CommandLine, path: str, told: str) -> None:
    """What is no file, but looks like what skopeo takes, is told the command or the form that does it."""
    ran = cli("import", path, check=False)

    assert ran.code == failures.SYSTEM
    assert told in ran.err


def test_import_of_a_path_that_is_not_there(cli: CommandLine) -> None:
    """A plain path gets no advice about registries."""
    assert "pull" not in cli("import", "/nowhere/image.tar", check=False).err


def test_the_transport_of_registries_may_be_written(cli: CommandLine) -> None:
    """``docker://`` before a reference means what it means without it."""
    ran = cli("pull", "docker://localhost:1/base:1", check=False)

    assert "localhost:1/base" in ran.err
    assert "is no host" not in ran.err


def test_a_size_names_its_option(cli: CommandLine) -> None:
    """A command line has several values; which one is wrong is told."""
    assert "'--size'" in cli("create", "--size", "much", "base", check=False).err


def test_a_name_without_a_tag(store: CommandLine) -> None:
    """There is ``debian:12`` and no ``debian:latest``: what a bare name means is told."""
    assert "NAME:latest" in store("create", "debian", check=False).err
