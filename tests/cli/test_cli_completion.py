"""Names offered by a shell's completion."""

import contextlib
import os
import pty
import subprocess
import sys

import pytest
from clirun import CommandLine, run_program


def offered(cli: CommandLine, words: str, **env: str) -> list[str]:
    """Give what is offered for the last word of a command line."""
    typed = f"graphdriver --root {cli.root} {words}"
    ran = run_program(env={"COMP_LINE": typed, "_GRAPHDRIVER_COMPLETE": "bash_complete", **env})
    assert (ran.code, ran.err) == (0, "")
    return [line.partition(",")[2] for line in ran.out.splitlines() if line]


@pytest.fixture
def named(store: CommandLine) -> CommandLine:
    """A store with images, containers, a checkpoint and a layer made by hand."""
    store("tag", "debian:12", "example.org/team/base:1")
    for name in ("web", "worker"):
        store("create", "debian:12", "--name", name)
    store("checkpoint", "web", "before")
    store("layer", "create", "mine")
    return store


def test_names_of_each_kind(named: CommandLine) -> None:
    """Where a container is wanted containers, where an image is wanted images as people write them, and so on."""
    short = named("images", "-q").out.strip()

    assert offered(named, "rm w") == ["web", "worker"]
    assert offered(named, "create ") == ["debian:12", "example.org/team/base:1"]
    assert offered(named, "rmi deb") == ["debian:12"]
    assert offered(named, "rmi debian:") == ["debian:12"]
    assert offered(named, "save debian:12 ex") == ["example.org/team/base:1"]
    assert offered(named, f"history {short[:4]}") == [short]
    assert offered(named, "mount we") == ["web"]
    assert offered(named, "mount ex") == ["example.org/team/base:1"]
    assert offered(named, "diff web m") == ["mine"]
    assert offered(named, "layer seal m") == ["mine"]
    assert offered(named, "rollback web ") == ["before"]
    assert offered(named, "rollback worker ") == []


def test_root_from_the_environment(named: CommandLine) -> None:
    """It counts as on any command line."""
    words = {"COMP_WORDS": "graphdriver rm w", "COMP_CWORD": "2", "_GRAPHDRIVER_COMPLETE": "fish_complete"}
    ran = run_program(env={**words, "COMP_CWORD": "w", "GRAPHDRIVER_ROOT": str(named.root)})

    assert [line.partition(",")[2] for line in ran.out.splitlines()] == ["web", "worker"]


def test_nothing_to_offer(cli: CommandLine) -> None:
    """No store, or a damaged one: no candidates, no message, and nothing is made."""
    assert offered(cli, "rm ") == []
    assert not cli.root.exists()
    (cli.root / "store").mkdir(parents=True)
    (cli.root / "store" / "ledger.sqlite").write_bytes(b"garbage" * 1000)
    assert offered(cli, "rm ") == []
    assert offered(cli, "rm -") != []
    assert os.listdir(cli.root / "store") == ["ledger.sqlite"]


def test_drivers_and_folders(cli: CommandLine) -> None:
    """Global options are completed too, wherever they stand: a driver by its name, a root by the shell's folders."""
    assert offered(cli, "--driver o") == ["overlay"]
    assert offered(cli, "images --driver a") == ["aufs", "auto"]
    ran = run_program(env={"COMP_LINE": "graphdriver --root /tm", "_GRAPHDRIVER_COMPLETE": "bash_complete"})
    assert ran.out.strip() == "dir,/tm"


def in_bash(cli: CommandLine, typed: str) -> None:
    """Let a bash on a terminal, with the completion script, have one line typed."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    env = {"PATH": path, "GRAPHDRIVER_ROOT": str(cli.root), "GRAPHDRIVER_DRIVER": cli.driver, "TERM": "dumb"}
    typed = f'eval "$(graphdriver completion bash)"\n{typed}\nexit\n'
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        start_new_session=True,
    ):
        os.close(theirs)
        os.write(ours, typed.encode())
        with contextlib.suppress(OSError):  # EIO: the terminal has no other end any more
            while os.read(ours, 4096):
                pass
    os.close(ours)


def test_names_with_a_colon_in_a_real_bash(named: CommandLine) -> None:
    """A tag is completed though words of bash end at colons, and so is what follows such a name."""
    named("tag", "debian:12", "second:1")
    in_bash(named, "graphdriver create debian:\t --name tabbed")
    in_bash(named, "graphdriver create exam\t --name other")
    in_bash(named, "graphdriver rmi second:1 example.org/team/ba\t")

    assert [found["Name"] for found in named("inspect", "tabbed", "other").json] == ["tabbed", "other"]
    assert "example.org" not in named("images").out
