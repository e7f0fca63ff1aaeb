"""What completes the command line in a shell: click's scripts for zsh and fish, and one of our own for bash."""

import os

import click
from click.shell_completion import BashComplete, ShellComplete, get_completion_class, split_arg_string

from graphdrivers.cli.settings import COMPLETION_VARIABLE, Settings

_BASH = r"""
%(complete_func)s() {
    local type value typed prefix=
    COMPREPLY=()
    # Words of readline end at colons, which names of images have; so the line is looked at, and not COMP_WORDS.
    typed=${COMP_LINE:0:COMP_POINT}
    if [[ $COMP_WORDBREAKS == *:* && ${typed##*[[:space:]]} == *:* ]]; then
        prefix=${typed##*[[:space:]]}
        prefix=${prefix%%"${prefix##*:}"}
    fi
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done < <(COMP_LINE=$typed %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    """Completion for bash that knows names with a colon.

    Source: Bash Reference Manual, Programmable Completion (COMP_LINE, COMP_WORDBREAKS).
    """

    source_template = _BASH.lstrip()

    def get_completion_args(self) -> tuple[list[str], str]:
        """Give the whole words before the cursor, and the one that is being typed."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)[1:]
        return (words, "") if not words or line[-1:].isspace() else (words[:-1], words[-1])


def completer(program: click.Command, settings: Settings, shell: str) -> ShellComplete:
    """Give what completes in a shell.

    Raises:
        click.UsageError: this version of click cannot.
    """
    maker = Bash if shell == Bash.name else get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"this version of click cannot complete in {shell}")
    return maker(program, {"obj": settings}, program.name or "", COMPLETION_VARIABLE)


def complete(program: click.Command, settings: Settings, asked: str) -> None:
    """Print what a completion script asks for, in its variable: ``SHELL_complete``."""
    found = completer(program, settings, asked.partition("_")[0])
    click.echo(found.complete())
