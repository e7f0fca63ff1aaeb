"""What fingers type that know docker, podman, skopeo or umoci, and what does the same here."""

import difflib
from collections.abc import Iterable, Mapping

COMMANDS = {
    "add": "'import' or 'create'",
    "attach": "'bundle', and crun or runc",
    "build": "'create', 'mount' and 'commit'; nothing here reads a Dockerfile",
    "clean": "'gc'",
    "clone": "'fork'",
    "container": "'create', 'ls', 'rm' or 'inspect'",
    "containers": "'ls'",
    "copy": "'pull', 'push', 'import' or 'save'",
    "cp": "'mount', and cp",
    "delete": "'rm' or 'rmi'",
    "df": "'status'",
    "exec": "'bundle', and crun or runc",
    "fsck": "'check'",
    "help": "'graphdriver --help' or 'graphdriver COMMAND --help'",
    "image": "'images', 'rmi', 'inspect' or 'history'",
    "info": "'status' or 'doctor'",
    "list": "'ls' or 'images'",
    "load": "'import'",
    "login": "'podman login', 'skopeo login' or 'docker login', whose files 'pull' and 'push' read",
    "logout": "'podman logout', 'skopeo logout' or 'docker logout'",
    "mv": "'fork' and 'rm'",
    "prune": "'gc'",
    "ps": "'ls'",
    "remove": "'rm' or 'rmi'",
    "rename": "'fork' and 'rm'",
    "restore": "'rollback'",
    "run": "'create' and 'bundle', and crun or runc",
    "snapshot": "'checkpoint'",
    "start": "'bundle', and crun or runc",
    "stop": "crun or runc",
    "system": "'status' or 'gc'",
    "unpack": "'import' and 'mount'",
    "untag": "'rmi'",
    "version": "'graphdriver --version'",
}
"""Words that are no commands of this program: what does the same."""

LAYER_COMMANDS = {
    "add": "'create'",
    "commit": "'seal'",
    "delete": "'rm'",
    "export": "'diff'",
    "extract": "'apply'",
    "help": "'graphdriver layer COMMAND --help'",
    "import": "'apply'",
    "list": "'ls'",
    "new": "'create'",
    "remove": "'rm'",
    "unpack": "'apply'",
}
"""The same below ``layer``."""

OPTIONS = {
    "images -a": "the default",
    "images --all": "the default",
    "ls -a": "the default",
    "ls --all": "the default",
    "--digests": "'--json'",
    "--filter": "'--json', and jq",
    "--format": "'--json', and jq",
    "--interactive": "'bundle', and crun or runc",
    "--rm": "'rm' afterwards",
    "--tty": "'bundle --tty'",
}
"""The same of options, or of those of one command; what a command has is never looked up."""

VALUES = {"--tls-verify": "'--no-tls-verify'"}
"""Flags that other programs give a value, as in ``--tls-verify=false``, and that none is given here."""

_NEAR = 0.7
"""How like a word must be to be worth naming (`difflib.SequenceMatcher.ratio`): ``--filter`` is not ``--driver``."""


def command(typed: str, known: Iterable[str], words: Mapping[str, str]) -> str:
    """Say that a command does not exist, and what may have been meant: what does a habit's work, or the nearest."""
    return _told(f"No such command {typed!r}", words.get(typed), typed, known)


def option(typed: str, known: Iterable[str], of: str) -> str:
    """Say the same of an option of the command ``of``."""
    return _told(f"No such option {typed!r}", OPTIONS.get(f"{of} {typed}") or OPTIONS.get(typed), typed, known)


def _told(wrong: str, habit: str | None, typed: str, known: Iterable[str]) -> str:
    if habit is not None:
        return f"{wrong}; here that is {habit}"
    near = difflib.get_close_matches(typed.lower(), list(known), 1, _NEAR)
    return f"{wrong}; did you mean {near[0]!r}?" if near else wrong
