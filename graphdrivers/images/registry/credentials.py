"""Who we are to a registry: given, or found in the files that skopeo, podman and docker log in to.

oras reads such files too, but it adds the Docker file that the environment
names whatever it was given, loses the order of the files, knows neither the
entries for single repositories nor docker.io's old name, and only logs the
failure of a credential helper. So they are read here.

Source: containers-auth.json(5); Docker's ``docker login`` reference, headings
*Credential stores* and *Credential helpers*.
"""

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import NoReturn

import attrs

from graphdrivers import errors

_FILE_MAX = 1 << 20
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_HELPER_SECONDS = 60
_DOCKER_HUB = ("docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers call a user who has none


@attrs.frozen
class Login:
    """One user of one registry."""

    user: str
    password: str = attrs.field(repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    """Stands in for the password where a registry gave one at login (OAuth2 refresh token)."""


@attrs.frozen
class Credentials:
    """Where logins come from: one that is given, else the first file that has one. Nothing at all is anonymous."""

    user: str = ""
    password: str = attrs.field(default="", repr=False)
    files: tuple[str, ...] = ()
    """Paths in order of precedence, both Docker's ``config.json`` and ``auth.json`` of containers; see `auth_files`."""

    def login(self, host: str, path: str) -> Login | None:
        """Find the login for a repository; ``None`` where there is none. May ask a credential helper.

        Raises:
            AuthenticationFailed: a file that is there cannot be understood, or a helper fails.
        """
        if self.user:
            return Login(self.user, self.password)
        for name in self.files:
            if login := _AuthFile(name, host).login(path):
                return login
        return None


ANONYMOUS = Credentials()


def auth_files(environ: Mapping[str, str]) -> tuple[str, ...]:
    """List the usual places of auth files for an environment, most important first; they need not exist.

    Without ``XDG_RUNTIME_DIR``, as root is after sudo(8), skopeo and podman log in to a file below ``/run/containers``.
    """
    if named := environ.get("REGISTRY_AUTH_FILE"):
        return (named,)
    home = environ.get("HOME", "")
    config = environ.get("XDG_CONFIG_HOME") or (home and os.path.join(home, ".config"))
    docker = environ.get("DOCKER_CONFIG") or (home and os.path.join(home, ".docker"))
    runtime = environ.get("XDG_RUNTIME_DIR")
    places = (
        (runtime, "containers/auth.json") if runtime else (f"/run/containers/{os.getuid()}", "auth.json"),
        (config, "containers/auth.json"),
        (docker, "config.json"),
    )
    return tuple(os.path.join(folder, name) for folder, name in places if folder)


@attrs.frozen(eq=False)
class _AuthFile:
    """One file, looked into for one registry."""

    name: str
    host: str

    def login(self, path: str) -> Login | None:
        """Look for a login: a helper for the host first, then entries, then the store for all hosts."""
        fields = self._read()
        for key in self._keys():
            if helper := self._text(self._object(fields, "credHelpers"), key):
                return self._ask(helper, key)
        entries = self._object(fields, "auths")
        for key in self._entry_keys(path):
            entry = self._object(entries, key)
            if login := self._entry(key, entry):
                return login
        if store := self._text(fields, "credsStore"):
            for key in self._keys():
                if login := self._ask(store, key):
                    return login
        return None

    def _read(self) -> Mapping[str, object]:
        try:
            with open(self.name, "rb") as stream:
                text = stream.read(_FILE_MAX)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            self._refuse(f"cannot be read: {error.strerror}")
        try:
            fields = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError):
            self._refuse("is not JSON")
        if not isinstance(fields, dict):
            self._refuse("is not a JSON object")
        return fields

    def _keys(self) -> tuple[str, ...]:
        """Give the names of the host in files: the Docker Hub has four."""
        return _DOCKER_HUB if self.host == "docker.io" else (self.host, f"https://{self.host}", f"http://{self.host}")

    def _entry_keys(self, path: str) -> Iterator[str]:
        """Give the keys of entries, the most specific first: ``host/team/app``, ``host/team``, ``host``."""
        while path:
            yield f"{self.host}/{path}"
            path = path.rpartition("/")[0]
        for key in self._keys():
            yield from (key, f"{key}/v1/", f"{key}/v2/")

    def _entry(self, key: str, entry: Mapping[str, object]) -> Login | None:
        """Read one entry; an empty one only says that a helper has it."""
        token = self._text(entry, "identitytoken")
        user, password = self._text(entry, "username"), self._text(entry, "password")
        if encoded := self._text(entry, "auth"):
            try:
                user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
            except (binascii.Error, UnicodeDecodeError):
                self._refuse(f"has an entry for {key!r} that is not base64")
            password = password.strip("\0")  # docker pads so
        if not user and not token:
            if self._text(entry, "registrytoken"):
                self._refuse(f"has an entry for {key!r} with a registrytoken, which is not supported")
            return None
        return Login(user, password, token)

    def _ask(self, helper: str, key: str) -> Login | None:
        """Ask ``docker-credential-HELPER``; ``None`` where it does not know the host."""
        program = f"docker-credential-{helper}"
        if not _HELPER_NAME.fullmatch(helper):
            self._refuse(f"names the credential helper {helper!r}, which is no name of a program")
        try:
            done = subprocess.run(
                [program, "get"], input=key.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = error.strerror if isinstance(error, OSError) else f"it takes more than {_HELPER_SECONDS} s"
            self._refuse(f"names the credential helper {program!r}, which fails: {reason}")
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if done.returncode:
            if "not found" in said:  # the only sign there is: helpers print "credentials not found in native keychain"
                return None
            self._refuse(f"names the credential helper {program!r}, which fails: {said[:200]}")
        try:
            answer = json.loads(done.stdout)
            user, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            self._refuse(f"names the credential helper {program!r}, which does not answer as one")
        return Login("", "", secret) if user == _TOKEN_USER else Login(user, secret)

    def _object(self, fields: Mapping[str, object], key: str) -> Mapping[str, object]:
        value = fields.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._refuse(f"has {key!r} that is not an object")
        return value

    def _text(self, fields: Mapping[str, object], key: str) -> str:
        value = fields.get(key)
        if value is not None and not isinstance(value, str):
            self._refuse(f"has {key!r} that is not a string")
        return value or ""

    def _refuse(self, reason: str) -> NoReturn:
        raise errors.AuthenticationFailed(self.host, f"the auth file {self.name!r} {reason}", host=self.host)
