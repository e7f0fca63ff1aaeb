"""The JSON that parsers disagree on is refused."""

import pytest

from graphdrivers import errors
from graphdrivers.images.documents import DEPTH_MAX, Document, parse, parse_object

AMBIGUOUS = {
    "repeated key": b'{"layers": [], "layers": [1]}',
    "repeated key deep below": b'{"a": [{"b": 1, "b": 2}]}',
    "repeated key by an escape": b'{"a": 1, "\\u0061": 2}',
    "NaN": b'{"size": NaN}',
    "Infinity": b'{"size": -Infinity}',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "two documents": b"{}{}",
    "a comment": b"{} // no",
    "a trailing comma": b'{"a": 1,}',
    "single quotes": b"{'a': 1}",
    "nothing": b"",
    "an open string": b'{"a": "',
    "a number of a million digits": b'{"a": ' + b"1" * 1_000_000 + b"}",
}


@pytest.mark.parametrize("text", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_json_is_refused(text: bytes) -> None:
    """What is no strict JSON is an InvalidManifest that names the document."""
    with pytest.raises(errors.InvalidManifest, match="the document is not strict JSON"):
        parse(text, "image", "the document")


def test_depth_is_limited_before_parsing() -> None:
    """Nesting is refused beyond the limit, and brackets in strings do not count."""
    deepest = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    assert parse(deepest, "image", "it") is not None
    assert parse(b'["' + b"[{" * 1000 + b'\\""]', "image", "it")
    for text in (b"[" + deepest + b"]", b"[" * 4_000_000, b'{"a":' * 800_000):
        with pytest.raises(errors.InvalidManifest, match="nested deeper"):
            parse(text, "image", "it")


@pytest.mark.parametrize(
    "text", [b'"' + b'\\"' * 2_000_000, b'"\\' * 2_000_000, b'"' * 4_000_000, b"{" + b'"a":1,' * 600_000]
)
def test_hostile_json_takes_linear_time(text: bytes) -> None:
    """Four MiB made to trip a backtracking scanner are refused; quadratic time would take hours."""
    with pytest.raises(errors.InvalidManifest):
        parse(text, "image", "it")


def test_not_an_object() -> None:
    """An array is no manifest."""
    with pytest.raises(errors.InvalidManifest, match="it is not a JSON object"):
        parse_object(b"[]", "image", "it")


def test_keys_differing_in_case() -> None:
    """Go would take the last of them, whatever its case."""
    with pytest.raises(errors.InvalidManifest, match="differ only in case"):
        parse_object(b'{"layers": [], "Layers": []}', "image", "it")


WRONG_TYPES = {
    "bool as int": lambda d: d.number("true"),
    "text as int": lambda d: d.number("text"),
    "float as int": lambda d: d.number("float"),
    "negative": lambda d: d.number("negative"),
    "too large": lambda d: d.number("large"),
    "int as text": lambda d: d.text("zero"),
    "missing text": lambda d: d.text("missing"),
    "object as array": lambda d: d.objects("object"),
    "array of ints as texts": lambda d: d.texts("ints"),
    "array of ints as objects": lambda d: d.objects("ints"),
    "array as object": lambda d: d.child("ints"),
    "missing object": lambda d: d.child("missing"),
    "array as map": lambda d: d.text_map("ints"),
    "map of ints": lambda d: d.text_map("object"),
}


@pytest.mark.parametrize("take", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types_are_refused(take: object) -> None:
    """Each getter names the field that is wrong."""
    fields = {
        "true": True,
        "text": "1",
        "float": 1.0,
        "negative": -1,
        "large": 1 << 63,
        "zero": 0,
        "object": {"a": 1},
        "ints": [1],
    }
    with pytest.raises(errors.InvalidManifest, match=r"^image: it has"):
        take(Document("image", "it", fields))  # type: ignore[operator]


def test_right_types_pass() -> None:
    """Getters give values; null arrays are empty, as Go writes them."""
    document = Document("image", "it", {"a": None, "n": 0, "t": "x", "o": [{"n": 1}], "m": {"k": "v"}})
    assert (document.number("n"), document.text("t"), document.text("z", "")) == (0, "x", "")
    assert (document.objects("a"), document.texts("a"), document.text_map("a")) == ((), (), {})
    assert document.objects("o")[0].number("n") == 1
    assert document.text_map("m") == {"k": "v"}
    assert not document.has("a")
