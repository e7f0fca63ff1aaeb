"""Words of a Dockerfile's instructions: quotes taken off, variables put in, as Docker does it.

It resembles a shell without being one: ``$NAME`` and ``${NAME}``, with ``-``,
``+`` and ``?`` (and ``:`` before them) inside braces; nothing is run.

Source: Dockerfile reference, headings *Escape* and *Environment replacement*.
"""

from collections.abc import Mapping

import attrs

_SPECIAL = frozenset("@*#?-$!0")
_MODIFIERS = frozenset("-+?")


class BadWord(ValueError):
    """A text that cannot be read as words; its text says why."""


def split(text: str) -> list[str]:
    """Split at blanks outside quotes and not escaped; quotes and escapes stay."""
    words: list[str] = []
    word, quote, escaped = "", "", False
    for char in text:
        if char.isspace() and not quote and not escaped:
            words += [word] if word else []
            word = ""
            continue
        word += char
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
    return [*words, word] if word else words


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Take the quotes off a word and put the variables in; blanks stay as they are.

    Raises:
        BadWord: a quote or brace is not closed, or a substitution is not understood.
    """
    return _Lexer(text, variables).until("")[0]


def expand_words(text: str, variables: Mapping[str, str]) -> list[str]:
    """Do the same, then split at blanks that were not quoted: one variable can become several words.

    Raises:
        BadWord: as for `expand`.
    """
    return _Lexer(text, variables).until("")[1]


@attrs.define
class _Words:
    """Words that grow."""

    words: list[str] = attrs.field(factory=list)
    word: str = ""

    def add(self, text: str) -> None:
        """Add text whose blanks separate."""
        for char in text:
            if char.isspace():
                self.end()
            else:
                self.word += char

    def end(self) -> None:
        """End a word, if there is one."""
        if self.word:
            self.words.append(self.word)
            self.word = ""


class _Lexer:
    """Reads one text from its beginning to its end."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self._text = text
        self._at = 0
        self._variables = variables

    def until(self, stop: str) -> tuple[str, list[str]]:
        """Read up to and over the character ``stop``, to the end where it is empty; give the text, and its words."""
        result, words = "", _Words()
        while (char := self._peek()) and char != stop:
            if char in "'\"":
                piece = self._single() if char == "'" else self._double()
                words.word += piece
            elif char == "$":
                piece = self._dollar()
                words.add(piece)
            elif char == "\\":
                self._next()
                piece = self._next()
                words.word += piece
            else:
                piece = self._next()
                words.add(piece)
            result += piece
        if stop and not self._next():
            raise BadWord(f"there is no {stop!r} to an opening one")
        words.end()
        return result, words.words

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _single(self) -> str:
        """Read what is between single quotes, as it is."""
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise BadWord("a single quote is not closed")
        piece = self._text[self._at + 1 : end]
        self._at = end + 1
        return piece

    def _double(self) -> str:
        """Read what is between double quotes: variables count, and a backslash before a few characters."""
        self._next()
        result = ""
        while (char := self._peek()) != '"':
            if not char:
                raise BadWord("a double quote is not closed")
            if char == "$":
                result += self._dollar()
                continue
            self._next()
            if char == "\\" and self._peek() and self._peek() in '"$\\':
                char = self._next()
            result += char
        self._next()
        return result

    def _dollar(self) -> str:
        """Read a substitution."""
        self._next()
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._next()
        name = self._name()
        if not name:
            raise BadWord("a substitution has no name")
        char = self._next()
        if char == "}":
            return self._variables.get(name, "")
        empty_counts = char != ":"
        if not empty_counts:
            char = self._next()
        if char not in _MODIFIERS or not char:
            raise BadWord(f"the substitution of {name!r} is not understood; use ${{{name}}}, :- or :+")
        return self._choose(name, char, self.until("}")[0], empty_counts=empty_counts)

    def _choose(self, name: str, modifier: str, word: str, *, empty_counts: bool) -> str:
        """Decide between a variable's value and the word given beside it."""
        value = self._variables.get(name)
        there = value is not None and (empty_counts or value != "")
        if modifier == "+":
            return word if there else ""
        if there:
            return value or ""
        if modifier == "?":
            raise BadWord(f"{name}: {word or 'it is not set'}")
        return word

    def _name(self) -> str:
        """Read a variable's name; the shell's special ones are never set here."""
        start = self._at
        if self._peek().isdigit():
            while self._peek().isdigit():
                self._next()
        elif self._peek() and self._peek() in _SPECIAL:
            self._next()
        else:
            while self._peek().isalnum() or self._peek() == "_":
                self._next()
        return self._text[start : self._at]
