"""Configurations of new images: what is kept of the base, what is new, and what each change does."""

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outgoing_images import sha256

from graphdrivers import errors
from graphdrivers.images.configs import derived, timestamp
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.documents import DEPTH_MAX, parse
from graphdrivers.images.history import HistoryRow, rows
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.images.shellwords import BadWord, expand, expand_words, split
from graphdrivers.images.writing import encode
from graphdrivers.model import DiffID

NOON = dt.datetime(2024, 2, 29, 12, 0, 0, tzinfo=dt.UTC)
ONE, TWO, THREE = (DiffID(sha256(name)) for name in (b"one", b"two", b"three"))


def base(*diff_ids: DiffID, **fields: Any) -> ImageConfig:
    """Make the configuration of a base."""
    rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
    text = json.dumps({"os": "linux", "architecture": "riscv64", "rootfs": rootfs, **fields}).encode()
    return ImageConfig.parse(text, "base", "configuration", len(diff_ids))


def changed(config: dict[str, Any], *changes: str) -> Any:
    """Make changes to a ``config`` object."""
    return json.loads(derived(base(config=config), [], created=NOON, changes=changes))["config"]


def test_from_nothing() -> None:
    """The configuration of a root file system says no more than is known."""
    text = derived(None, [ONE], created=NOON, comment="imported")
    here = Platform.here()
    expected = {
        "architecture": here.architecture,
        "comment": "imported",
        "config": {},
        "created": "2024-02-29T12:00:00Z",
        "history": [{"comment": "imported", "created": "2024-02-29T12:00:00Z"}],
        "os": "linux",
        "rootfs": {"diff_ids": [ONE], "type": "layers"},
    }
    if here.variant:
        expected["variant"] = here.variant
    assert text == json.dumps(expected, separators=(",", ":"), sort_keys=True).encode()


def test_platform_can_be_chosen() -> None:
    """Another platform than the base's, or than this machine's, replaces all of it."""
    for start in (None, base(variant="v9")):
        fields = json.loads(derived(start, [], created=NOON, platform=Platform("linux", "s390x")))
        assert (fields["os"], fields["architecture"], fields.get("variant")) == ("linux", "s390x", None)
    fields = json.loads(derived(None, [], created=NOON, platform=Platform.parse("linux/arm/v7")))
    assert (fields["architecture"], fields["variant"]) == ("arm", "v7")


def test_kept_and_new() -> None:
    """Unknown fields stay, at every level; what spoke of the base's making goes; layers and history grow."""
    old = {"created": "2020-01-01T00:00:00Z", "created_by": "old", "odd": 1}
    start = base(
        ONE,
        config={"Cmd": ["sh"], "Odd": {"deep": [1, None, 1.5]}, "Env": ["A=1"]},
        history=[old, {"empty_layer": True}],
        author="them",
        comment="theirs",
        container="x",
        docker_version="1",
        created="2020-01-01T00:00:00Z",
        variant="v1",
        **{"os.features": ["x"], "big": 1 << 80, "\u00e9\ud800": "\udc00\u00fc"},
    )
    text = derived(
        start, [TWO, THREE], created=NOON, author="me", comment="mine", created_by="commit", changes=["ENV B=2"]
    )
    new = {"author": "me", "comment": "mine", "created": "2024-02-29T12:00:00Z", "created_by": "commit"}
    assert json.loads(text) == {
        "architecture": "riscv64",
        "author": "me",
        "big": 1 << 80,
        "comment": "mine",
        "config": {"Cmd": ["sh"], "Odd": {"deep": [1, None, 1.5]}, "Env": ["A=1", "B=2"]},
        "created": "2024-02-29T12:00:00Z",
        "history": [old, {"empty_layer": True}, new, new],
        "os": "linux",
        "os.features": ["x"],
        "rootfs": {"type": "layers", "diff_ids": [ONE, TWO, THREE]},
        "variant": "v1",
        "\u00e9\ud800": "\udc00\u00fc",
    }
    assert derived(start, [TWO], created=NOON) == derived(start, [TWO], created=NOON)


def test_author_is_not_inherited() -> None:
    """Who made the base has not made this."""
    fields = json.loads(derived(base(author="them", comment="theirs"), [], created=NOON))
    assert "author" not in fields
    assert "comment" not in fields


def test_change_without_layer() -> None:
    """A change of the configuration alone is an empty step of the history."""
    fields = json.loads(derived(base(ONE, history=[{}]), [], created=NOON, created_by="x"))
    assert fields["history"][1] == {"created": "2024-02-29T12:00:00Z", "created_by": "x", "empty_layer": True}


@pytest.mark.parametrize(
    ("told", "missing"), [(None, 2), ([{"empty_layer": True}], 2), ([{"a": 1}], 1), ([{}, {}], 0), ([{}, {}, {}], 0)]
)
def test_history_accounts_for_all_layers(told: Any, missing: int) -> None:
    """Layers that the base's history does not tell of are counted, so that the new step is the new layer's."""
    fields = json.loads(derived(base(ONE, TWO, history=told), [THREE], created=NOON))
    assert fields["history"][:-1] == [*(told or []), *([{}] * missing)]


def test_times() -> None:
    """Times are written in UTC; one without a zone is refused."""
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    assert timestamp(dt.datetime(2024, 1, 1, 5, 30, 0, 120, tzinfo=zone)) == "2024-01-01T00:00:00.000120Z"
    assert timestamp(dt.datetime(1, 1, 1, tzinfo=dt.UTC)) == "0001-01-01T00:00:00Z"
    with pytest.raises(ValueError, match="time zone"):
        timestamp(dt.datetime(2024, 1, 1))  # noqa: DTZ001 - what is refused


@pytest.mark.parametrize(
    "fields",
    [
        {"config": []},
        {"config": "x"},
        {"history": {}},
        {"history": [1]},
        {"history": "x"},
        {"config": {"Env": "A=1"}},
        {"config": {"Env": [1]}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"ExposedPorts": ["80"]}},
        {"config": {"cmd": ["old"]}},
        {"config": {"Shell": {"a": 1}}},
        {"config": {"WorkingDir": 1}},
        {"config": {"OnBuild": [None]}},
    ],
)
def test_odd_base(fields: dict[str, Any]) -> None:
    """A base whose fields have other types than they should is refused, not guessed at."""
    changes = ["ENV A=2", "LABEL a=b", "EXPOSE 1", "CMD x", "WORKDIR x", "ONBUILD RUN x"]
    with pytest.raises(errors.InvalidManifest):
        derived(base(**fields), [], created=NOON, changes=changes)


@pytest.mark.parametrize("change", ["CMD x", "USER x", "VOLUME /x"])
def test_base_in_other_letters(change: str) -> None:
    """A field that the base spells in other letters would be there twice to readers that fold case: refused."""
    with pytest.raises(errors.InvalidManifest, match="differ only in case"):
        derived(base(config={"cmd": ["old"], "USER": "old", "volumes": {}}), [], created=NOON, changes=[change])


def test_too_large() -> None:
    """A configuration that nobody would read is not made."""
    with pytest.raises(errors.InvalidManifest, match="is the limit"):
        derived(None, [], created=NOON, comment="x" * (4 << 20))
    with pytest.raises(errors.InvalidManifest, match="cannot be written"):
        derived(ImageConfig(b"", {"rootfs": {}, "x": float("inf")}, Platform.here(), ()), [], created=NOON)


CHANGES: list[tuple[dict[str, Any], list[str], dict[str, Any]]] = [
    ({}, ['CMD ["a", "b c"]'], {"Cmd": ["a", "b c"]}),
    ({}, ["CMD echo  $HOME 'x'"], {"Cmd": ["/bin/sh", "-c", "echo  $HOME 'x'"]}),
    ({"Shell": ["/bin/bash", "-ec"]}, ["cmd a"], {"Shell": ["/bin/bash", "-ec"], "Cmd": ["/bin/bash", "-ec", "a"]}),
    ({}, ["CMD [ -e /x ] && y"], {"Cmd": ["/bin/sh", "-c", "[ -e /x ] && y"]}),
    ({}, ["CMD ['a']"], {"Cmd": ["/bin/sh", "-c", "['a']"]}),
    ({"Cmd": ["x"]}, ["CMD []"], {}),
    ({"Cmd": ["x"], "Entrypoint": ["y"]}, ['ENTRYPOINT ["z"]'], {"Entrypoint": ["z"]}),
    ({"Cmd": ["x"]}, ['CMD ["q"]', 'ENTRYPOINT ["z"]'], {"Entrypoint": ["z"], "Cmd": ["q"]}),
    ({}, ['ENTRYPOINT ["z"]', 'CMD ["q"]'], {"Entrypoint": ["z"], "Cmd": ["q"]}),
    ({"Env": ["A=1", "B=2"]}, ["ENV A=3 C='x y' D=e\\ f"], {"Env": ["A=3", "B=2", "C=x y", "D=e f"]}),
    ({"Env": ["PATH=/bin"]}, ["ENV PATH=/opt:$PATH X=$PATH"], {"Env": ["PATH=/opt:/bin", "X=/bin"]}),
    ({}, ["ENV A some  words here"], {"Env": ["A=some  words here"]}),
    ({}, ["ENV A=1", "ENV B=${A}2 C=${NO:-d} D=${A:+e} E=${NO} F=$$ G='$A' H=\\$A"],
     {"Env": ["A=1", "B=12", "C=d", "D=e", "E=", "F=", "G=$A", "H=$A"]}),
    ({}, ["ENV A=1 \\\n B=2"], {"Env": ["A=1", "B=2"]}),
    ({}, ["ENV A="], {"Env": ["A="]}),
    ({"Labels": {"a": "1"}}, ['LABEL a=2 "b c"="d e" f=$NO'], {"Labels": {"a": "2", "b c": "d e", "f": ""}}),
    ({"Labels": None}, ["LABEL a=b=c"], {"Labels": {"a": "b=c"}}),
    ({"ExposedPorts": {"22/tcp": {}}}, ["EXPOSE 80 53/UDP 8000-8002"],
     {"ExposedPorts": {f"{p}": {} for p in ("22/tcp", "80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")}}),
    ({"Env": ["P=80 81/sctp"]}, ["EXPOSE $P"],
     {"Env": ["P=80 81/sctp"], "ExposedPorts": {"80/tcp": {}, "81/sctp": {}}}),
    ({}, ["USER 1000:1000"], {"User": "1000:1000"}),
    ({"Env": ["U=me"]}, ["USER ${U}"], {"Env": ["U=me"], "User": "me"}),
    ({"Volumes": {"/a": {"x": 1}}}, ["VOLUME /b /c", 'VOLUME ["/d e"]'],
     {"Volumes": {"/a": {"x": 1}, "/b": {}, "/c": {}, "/d e": {}}}),
    ({"WorkingDir": "/a"}, ["WORKDIR b/../c", "WORKDIR d"], {"WorkingDir": "/a/c/d"}),
    ({}, ["WORKDIR x"], {"WorkingDir": "/x"}),
    ({}, ["WORKDIR ../../x"], {"WorkingDir": "/x"}),
    ({"WorkingDir": "/a"}, ["WORKDIR /b"], {"WorkingDir": "/b"}),
    ({}, ["STOPSIGNAL SIGTERM"], {"StopSignal": "SIGTERM"}),
    ({}, ["STOPSIGNAL 9"], {"StopSignal": "9"}),
    ({}, ["STOPSIGNAL RTMIN+3"], {"StopSignal": "RTMIN+3"}),
    ({"OnBuild": ["RUN a"]}, ["ONBUILD copy . /x"], {"OnBuild": ["RUN a", "copy . /x"]}),
    ({"Healthcheck": {"Test": ["CMD", "x"]}}, ["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
    ({}, ["HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD curl -f x || exit 1"],
     {"Healthcheck": {"Test": ["CMD-SHELL", "curl -f x || exit 1"], "Interval": 90 * 10**9, "Timeout": 15 * 10**8,
                      "Retries": 3}}),
    ({}, ['HEALTHCHECK --start-period=1h --start-interval=0 CMD ["a", "b"]'],
     {"Healthcheck": {"Test": ["CMD", "a", "b"], "StartPeriod": 3600 * 10**9}}),
]  # fmt: skip


@pytest.mark.parametrize(("config", "changes", "expected"), CHANGES, ids=lambda value: str(value)[:40])
def test_changes(config: dict[str, Any], changes: list[str], expected: dict[str, Any]) -> None:
    """Each instruction does what it does in a Dockerfile, and leaves the rest alone."""
    assert changed({**config, "Odd": 1}, *changes) == {**expected, "Odd": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("", "not one instruction"),
        ("  ", "not one instruction"),
        ("# CMD x", "not one instruction"),
        ("ENV A=1\nENV B=2", "not one instruction"),
        ("FROM x", "FROM is not among CMD, ENTRYPOINT"),
        ("RUN make", "RUN is not among"),
        ('SHELL ["x"]', "SHELL is not among"),
        ("CMD", "nothing comes behind"),
        ("CMD [1]", "something else than strings"),
        ('CMD [["x"]]', "something else than strings"),
        ("ENV A", "no value for 'A'"),
        ("ENV A=1 B", "'B' is not NAME=VALUE"),
        ("ENV =1", "is not NAME=VALUE"),
        ("ENV A='x", "single quote is not closed"),
        ('ENV A="x', "double quote is not closed"),
        ("ENV A=${B", "is not understood"),
        ("ENV A=${B:-c", "no '}'"),
        ("ENV A=${}", "no name"),
        ("ENV A=${B%x}", "is not understood"),
        ("ENV A=${B:?needed}", "B: needed"),
        ("LABEL a", "no value"),
        ("EXPOSE 0", "is not PORT"),
        ("EXPOSE 65536", "is not PORT"),
        ("EXPOSE 80-79", "is not PORT"),
        ("EXPOSE 80/icmp", "is not PORT"),
        ("EXPOSE 127.0.0.1:80:80", "is not PORT"),
        ("VOLUME []", "no path"),
        ('VOLUME [""]', "no path"),
        ("WORKDIR $NO", "path is empty"),
        ("STOPSIGNAL SIGNONE", "no signal"),
        ("STOPSIGNAL 0", "no signal"),
        ("STOPSIGNAL 65", "no signal"),
        ("ONBUILD ONBUILD RUN x", "not possible in ONBUILD"),
        ("ONBUILD FROM x", "not possible in ONBUILD"),
        ("HEALTHCHECK x", r"\[OPTIONS\] CMD COMMAND"),
        ("HEALTHCHECK CMD", r"\[OPTIONS\] CMD COMMAND"),
        ("HEALTHCHECK CMD []", "no command"),
        ("HEALTHCHECK NONE x", r"\[OPTIONS\] CMD COMMAND"),
        ("HEALTHCHECK --retries=2 NONE", r"\[OPTIONS\] CMD COMMAND"),
        ("HEALTHCHECK --x=1 CMD y", "--x is not among"),
        ("HEALTHCHECK --retries=-1 CMD y", "no number"),
        ("HEALTHCHECK --retries=1 --retries=2 CMD y", "comes twice"),
        ("HEALTHCHECK --interval=5 CMD y", "no duration"),
        ("HEALTHCHECK --interval=1us CMD y", "shorter than 1ms"),
        ("HEALTHCHECK --interval=99999999999h CMD y", "longer than"),
    ],
)
def test_bad_change(change: str, words: str) -> None:
    """What is not understood is refused by its text, with what to do instead."""
    with pytest.raises(errors.InvalidChange, match=words) as caught:
        changed({}, change)
    assert caught.value.source == change
    assert "as in a Dockerfile" in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_encode(value: object) -> None:
    """What is written is read back as it was, by the strict parser too; the same value has one text."""
    text = encode(value, "image", "document")
    assert parse(text, "image", "document") == value
    assert encode(parse(text, "image", "document"), "image", "document") == text


@given(st.text(st.characters(codec="utf-16", categories=["L", "N", "P", "S", "Zs", "Cs"])))
def test_encode_odd_strings(text: str) -> None:
    """Any string a document can hold can be written, half a surrogate pair too."""
    assert parse(encode([text], "image", "document"), "image", "document") == [text]


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), st.text(max_size=8), max_size=3))
def test_quoted_values_survive(variables: dict[str, str]) -> None:
    """A value in quotes, with the characters that count escaped, arrives as it was."""
    words = []
    for name, value in variables.items():
        escaped = "".join("\\" + char if char in '"$\\' else char for char in value)
        words.append(f'{name}="{escaped}"')
    if not words or any("\n" in value or "\r" in value for value in variables.values()):
        return
    expected = [f"{name}={value}" for name, value in variables.items()]
    assert changed({}, "ENV " + " ".join(words))["Env"] == expected


@given(st.text("ab $'\"\\{}:-+?_1 \t", max_size=20))
def test_words_of_anything(text: str) -> None:
    """Any text is words or is refused; without anything special it is itself."""
    try:
        whole, words = expand(text, {"a": "x y"}), expand_words(text, {"a": "x y"})
    except BadWord:
        return
    if not set(text) & set("$'\"\\"):
        assert whole == text
        assert words == split(text) == text.split()


def test_split_after_expansion() -> None:
    """Blanks in quotes and behind a backslash belong to a word; those of a variable separate, unless it is quoted."""
    found = expand_words("""'a b' "c $V" d\\ e $V x$V""", {"V": "1 2"})
    assert found == ["a b", "c 1 2", "d e", "1", "2", "x1", "2"]


def test_history_rows() -> None:
    """Layers and sizes go to the steps that made something, in order."""
    config = base(ONE, TWO, history=[{"created": "x", "created_by": "a"}, {"empty_layer": True}, {"comment": "c"}])
    assert rows(config, [5, 7]) == (
        HistoryRow("x", "a", "", "", False, ONE, 5),
        HistoryRow("", "", "", "", True, None, 0),
        HistoryRow("", "", "c", "", False, TWO, 7),
    )


def test_history_of_other_layers() -> None:
    """A history of more or fewer steps than layers, or of nothing, still gives every layer once."""
    more = rows(base(ONE, history=[{}, {}]), [5])
    assert [(row.diff_id, row.size) for row in more] == [(ONE, 5), (None, 0)]
    for told in (None, [], [{"empty_layer": True}]):
        fewer = [row for row in rows(base(ONE, TWO, history=told), [5, 7]) if not row.empty_layer]
        assert [(row.diff_id, row.size) for row in fewer] == [(ONE, 5), (TWO, 7)]
    with pytest.raises(ValueError, match="shorter"):
        rows(base(ONE), [])


def test_hostile_history() -> None:
    """Fields of other types are shown as nothing; a history that is none is refused; a long one is no trouble."""
    odd = {"created": 5, "created_by": ["x"], "comment": None, "author": {}, "empty_layer": "yes"}
    assert rows(base(ONE, history=[odd]), [5]) == (HistoryRow("", "", "", "", False, ONE, 5),)
    assert len(rows(base(history=[{"empty_layer": True}] * 100_000), [])) == 100_000
    for history in ({}, "x", [1], [[]], [{"a": 1, "A": 2}]):
        with pytest.raises(errors.InvalidManifest):
            rows(base(history=history), [])


def test_deep_base() -> None:
    """What is nested as deep as documents may be can be written again."""
    deep: Any = 1
    for _ in range(DEPTH_MAX - 1):
        deep = [deep]
    assert json.loads(derived(base(deep=deep), [ONE], created=NOON))["deep"] == deep
