"""Changes to an image's configuration, as ``docker commit --change`` and ``docker import --change`` take them.

Each is one instruction of a Dockerfile, and does what it does there: variables
are those of the image's own environment, ``ENTRYPOINT`` takes an inherited
``CMD`` away, a command that is no JSON array is given to the image's shell.

Source: Dockerfile reference; moby ``builder/dockerfile``, the instructions valid for a commit.
"""

import json
import posixpath
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import attrs

from graphdrivers import errors
from graphdrivers.images.documents import Document
from graphdrivers.images.healthchecks import read_healthcheck
from graphdrivers.images.shellwords import BadWord, expand, expand_words, split

_INSTRUCTION = re.compile(r"([A-Za-z]+)(?:\s+(.*))?", re.DOTALL)
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_REAL_TIME_SIGNAL = re.compile(r"RTMIN(\+(?:[0-9]|1[0-5]))?|RTMAX(-(?:[0-9]|1[0-4]))?")
_SHELL = ["/bin/sh", "-c"]
_IN_ONBUILD = frozenset(
    ["ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "RUN", "SHELL"]
).union(["STOPSIGNAL", "USER", "VOLUME", "WORKDIR"])
_PORT_MAX = 65535


def apply_changes(config: Document, changes: Sequence[str]) -> dict[str, object]:
    """Give a configuration's ``config`` object with changes made to it, one after the other.

    Args:
        config: the object as it is. What no change speaks of stays, known or not.
        changes: instructions: ``CMD``, ``ENTRYPOINT``, ``ENV``, ``EXPOSE``, ``HEALTHCHECK``, ``LABEL``,
            ``ONBUILD``, ``STOPSIGNAL``, ``USER``, ``VOLUME`` and ``WORKDIR``, in capitals or not.

    Raises:
        InvalidChange: an instruction is another one, or not understood.
        InvalidManifest: a field that one speaks of has another type than it should.
    """
    settings = _Settings(config)
    for change in changes:
        settings.apply(change)
    return settings.fields


class _Settings:
    """The fields while changes are made."""

    def __init__(self, config: Document) -> None:
        self.fields: dict[str, object] = dict(config.fields)
        self._config = config
        self._change = ""
        self._command_given = False

    def apply(self, change: str) -> None:
        """Make one change."""
        self._change = change
        text = re.sub(r"\\[ \t]*\r?\n", " ", change).strip()
        match = _INSTRUCTION.fullmatch(text)
        if match is None or "\n" in text:
            self._refuse("it is not one instruction of a Dockerfile")
        act = _ACTIONS.get(match[1].upper())
        if act is None:
            self._refuse(f"{match[1].upper()} is not among {', '.join(_ACTIONS)}")
        rest = (match[2] or "").strip()
        if not rest:
            self._refuse("nothing comes behind the instruction")
        try:
            act(self, rest)
        except BadWord as error:
            self._refuse(str(error))

    def command(self, rest: str) -> None:
        """``CMD``."""
        self._set("Cmd", self._line(rest))
        self._command_given = True

    def entrypoint(self, rest: str) -> None:
        """``ENTRYPOINT``: a command inherited from the base was meant for the base's."""
        self._set("Entrypoint", self._line(rest))
        if not self._command_given:
            self.fields.pop("Cmd", None)

    def environment(self, rest: str) -> None:
        """``ENV``: a variable keeps its place; values see what was set before the instruction."""
        entries = list(self._present().texts("Env"))
        for name, value in self._pairs(rest):
            places = [at for at, entry in enumerate(entries) if entry.partition("=")[0] == name]
            for at in places[:1]:
                entries[at] = f"{name}={value}"
            if not places:
                entries.append(f"{name}={value}")
        self.fields["Env"] = entries

    def labels(self, rest: str) -> None:
        """``LABEL``."""
        self.fields["Labels"] = self._present().text_map("Labels") | dict(self._pairs(rest))

    def ports(self, rest: str) -> None:
        """``EXPOSE``: ranges are written out."""
        for word in expand_words(rest, self._variables()):
            match = _PORT.fullmatch(word)
            first = int(match[1]) if match else 0
            last = int(match[2] or first) if match else 0
            if match is None or not 1 <= first <= last <= _PORT_MAX:
                self._refuse(f"{word!r} is not PORT[-PORT][/tcp|udp|sctp]")
            protocol = (match[3] or "tcp").lower()
            self._add("ExposedPorts", [f"{port}/{protocol}" for port in range(first, last + 1)])

    def volumes(self, rest: str) -> None:
        """``VOLUME``."""
        words = self._array(rest)
        words = split(rest) if words is None else words
        paths = [expand(word, self._variables()) for word in words]
        if not all(paths) or not paths:
            self._refuse("a volume has no path")
        self._add("Volumes", paths)

    def user(self, rest: str) -> None:
        """``USER``."""
        self.fields["User"] = expand(rest, self._variables())

    def workdir(self, rest: str) -> None:
        """``WORKDIR``: a relative path goes on from the present one."""
        path = expand(rest, self._variables())
        if not path:
            self._refuse("the path is empty")
        if not path.startswith("/"):
            path = posixpath.normpath(posixpath.join("/", self._present().text("WorkingDir", ""), path))
        self.fields["WorkingDir"] = path

    def stop_signal(self, rest: str) -> None:
        """``STOPSIGNAL``."""
        name = expand(rest, self._variables())
        if not _is_signal(name):
            self._refuse(f"{name!r} is no signal")
        self.fields["StopSignal"] = name

    def on_build(self, rest: str) -> None:
        """``ONBUILD``: kept as it is."""
        word = rest.split(maxsplit=1)[0].upper()
        if word not in _IN_ONBUILD:
            self._refuse(f"{word} is not possible in ONBUILD")
        self.fields["OnBuild"] = [*self._present().texts("OnBuild"), rest]

    def healthcheck(self, rest: str) -> None:
        """``HEALTHCHECK``."""
        self.fields["Healthcheck"] = read_healthcheck(rest, self._array)

    def _refuse(self, reason: str) -> NoReturn:
        raise errors.InvalidChange(self._change, reason)

    def _present(self) -> Document:
        """Give the fields as they are now, with typed access."""
        return attrs.evolve(self._config, fields=self.fields)

    def _variables(self) -> dict[str, str]:
        pairs = (entry.partition("=") for entry in self._present().texts("Env"))
        return {name: value for name, _, value in pairs}

    def _set(self, key: str, words: list[str]) -> None:
        """Set a command; an empty one is none."""
        if words:
            self.fields[key] = words
        else:
            self.fields.pop(key, None)

    def _add(self, key: str, names: Sequence[str]) -> None:
        """Add to what Go keeps as a set: an object with empty objects."""
        there = self._present().child(key).fields if self._present().has(key) else {}
        self.fields[key] = {**there, **{name: {} for name in names}}

    def _line(self, rest: str) -> list[str]:
        """Read a command: a JSON array of words, or a line for the image's shell."""
        words = self._array(rest)
        if words is None:
            return [*(self._present().texts("Shell") or _SHELL), rest]
        return words

    def _array(self, rest: str) -> list[str] | None:
        """Read a JSON array of strings; ``None`` where it is no JSON array at all: ``[`` is a command, too."""
        try:
            words = json.loads(rest) if rest.startswith("[") else None
        except (ValueError, RecursionError):
            return None
        if words is not None and not all(isinstance(word, str) for word in words):
            self._refuse("the array holds something else than strings")
        return words

    def _pairs(self, rest: str) -> list[tuple[str, str]]:
        """Read ``NAME=VALUE ...``, or the old ``NAME VALUE`` with blanks in the value."""
        words = split(rest)
        if "=" not in words[0]:
            if len(words) == 1:
                self._refuse(f"there is no value for {words[0]!r}")
            words = [f"{words[0]}={rest[len(words[0]) :].strip()}"]
        variables = self._variables()
        pairs = []
        for word in words:
            name, equals, value = word.partition("=")
            name = expand(name, variables)
            if not equals or not name:
                self._refuse(f"{word!r} is not NAME=VALUE; blanks in a value need quotes")
            pairs.append((name, expand(value, variables)))
        return pairs


def _is_signal(name: str) -> bool:
    """Tell whether Docker would know a signal: by number, or by name with or without ``SIG``."""
    if name.isascii() and name.isdigit():
        return 1 <= int(name) <= signal.SIGRTMAX
    short = name.upper().removeprefix("SIG")
    return f"SIG{short}" in signal.Signals.__members__ or _REAL_TIME_SIGNAL.fullmatch(short) is not None


_ACTIONS: Mapping[str, Callable[[_Settings, str], None]] = {
    "CMD": _Settings.command,
    "ENTRYPOINT": _Settings.entrypoint,
    "ENV": _Settings.environment,
    "EXPOSE": _Settings.ports,
    "HEALTHCHECK": _Settings.healthcheck,
    "LABEL": _Settings.labels,
    "ONBUILD": _Settings.on_build,
    "STOPSIGNAL": _Settings.stop_signal,
    "USER": _Settings.user,
    "VOLUME": _Settings.volumes,
    "WORKDIR": _Settings.workdir,
}
