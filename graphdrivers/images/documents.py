"""Strict JSON: what may stand in an index, a manifest or a configuration, and typed access to it.

Two parsers that read one document differently are how an image shows one thing
to a scanner and another to a runtime. So what parsers are known to disagree on
is refused: repeated keys, keys that differ only in case (Go folds them), NaN,
numbers that are booleans, bytes that are not UTF-8.
Source: CVE-2021-41190; OCI image-spec, ``canonicalization.md``.
"""

import json
import re
from collections.abc import Mapping
from typing import NoReturn

import attrs

from graphdrivers import errors

SIZE_MAX = 4 << 20
"""Bytes of the largest document that is read; registries and other tools stop here too."""

DEPTH_MAX = 64
"""Objects and arrays nested in one document."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A string, an unended one too: possessive and always matching, so that no input takes more than one pass."""
_BRACKET = re.compile(rb"[\[\]{}]")
_INTEGER_MAX = (1 << 63) - 1


@attrs.frozen(eq=False)
class Document:
    """One JSON object; each getter checks the type and names the field when it is wrong."""

    source: str
    """The image's path, for messages."""
    what: str
    """Which document this is (``manifest sha256:...``), for messages."""
    fields: Mapping[str, object] = attrs.field()

    @fields.validator
    def _unambiguous(self, _: object, fields: Mapping[str, object]) -> None:
        if len({key.casefold() for key in fields}) != len(fields):
            self.refuse("has keys that differ only in case")

    def refuse(self, reason: str) -> NoReturn:
        """Raise ``InvalidManifest`` that names the document."""
        raise errors.InvalidManifest(self.source, f"{self.what} {reason}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string; ``default`` stands in for a missing one."""
        value = self.fields.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            self.refuse(f"has no string {key!r}")
        return value

    def number(self, key: str) -> int:
        """Return an integer from 0 to 2^63-1; ``true`` is none."""
        value = self.fields.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _INTEGER_MAX:
            self.refuse(f"has no whole number {key!r} from 0 to 2^63-1")
        return value

    def objects(self, key: str) -> "tuple[Document, ...]":
        """Return an array of objects; a missing one or ``null`` is empty, as Go writes empty arrays."""
        return tuple(self._child(f"{key}[{at}]", item) for at, item in enumerate(self._array(key)))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return an array of strings; a missing one or ``null`` is empty."""
        items = tuple(item for item in self._array(key) if isinstance(item, str))
        if len(items) != len(self._array(key)):
            self.refuse(f"has something else than strings in {key!r}")
        return items

    def child(self, key: str) -> "Document":
        """Return an object that must be there."""
        return self._child(key, self.fields.get(key))

    def text_map(self, key: str) -> dict[str, str]:
        """Return an object whose values are strings (annotations); a missing one is empty."""
        value = self.fields.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            self.refuse(f"has {key!r} that is not an object of strings")
        return value

    def has(self, key: str) -> bool:
        """Tell whether the key is there with something else than ``null``."""
        return self.fields.get(key) is not None

    def _array(self, key: str) -> list[object]:
        value = self.fields.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(f"has {key!r} that is not an array")
        return value

    def _child(self, name: str, value: object) -> "Document":
        if not isinstance(value, dict):
            self.refuse(f"has no object {name!r}")
        return Document(self.source, f"{self.what}: {name}", value)


def parse_object(text: bytes, source: str, what: str) -> Document:
    """Parse a document that must be one object.

    Raises:
        InvalidManifest: it is not, or something in it is ambiguous.
    """
    value = parse(text, source, what)
    if not isinstance(value, dict):
        raise errors.InvalidManifest(source, f"{what} is not a JSON object")
    return Document(source, what, value)


def parse(text: bytes, source: str, what: str) -> object:
    """Parse one JSON text, refusing all that parsers disagree on.

    Args:
        text: at most ``SIZE_MAX`` bytes; its digest has been checked where there is one.
        source: the image's path, for messages.
        what: which document this is, for messages.

    Raises:
        InvalidManifest: not JSON, ambiguous, or nested deeper than ``DEPTH_MAX``.
    """
    try:
        _check_depth(text)
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise errors.InvalidManifest(source, f"{what} is not strict JSON: {error}") from error


def _check_depth(text: bytes) -> None:
    """Count brackets outside strings first: the parser itself recurses, with no limit of its own."""
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", text)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEPTH_MAX:
            raise ValueError(f"nested deeper than {DEPTH_MAX}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object of keys that come once."""
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key!r} comes twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
