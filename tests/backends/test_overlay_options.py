"""Options and plans of the overlay driver: values in, values out."""

from collections.abc import Mapping

import pytest

from graphdrivers import errors
from graphdrivers.backends.overlay import layout, options
from graphdrivers.backends.overlay.options import Settings
from graphdrivers.model import Mount


@pytest.mark.parametrize(
    ("given", "recorded", "settings"),
    [
        ({}, None, Settings()),
        ({"redirect_dir": "on"}, None, Settings(redirect_dir=True)),
        ({"metacopy": "on"}, None, Settings(redirect_dir=True, metacopy=True)),
        ({"metacopy": "off", "redirect_dir": "off"}, None, Settings()),
        ({}, {"redirect_dir": "on", "metacopy": "off"}, Settings(redirect_dir=True)),
        ({"redirect_dir": "on"}, {"redirect_dir": "on", "metacopy": "on"}, Settings(redirect_dir=True, metacopy=True)),
    ],
)
def test_options_are_read(given: Mapping[str, str], recorded: Mapping[str, str] | None, settings: Settings) -> None:
    """What is not given is as the home was made, else off; metacopy brings redirects."""
    assert options.parse(given, recorded) == settings
    assert options.parse({}, settings.lasting()) == settings


@pytest.mark.parametrize(
    ("given", "recorded", "option", "reason"),
    [
        ({"colour": "blue"}, None, "colour", "unknown"),
        ({"metacopy": "yes"}, None, "metacopy", "on or off"),
        ({"metacopy": "on", "redirect_dir": "off"}, None, "metacopy", "needs redirect_dir"),
        ({"redirect_dir": "on"}, {"redirect_dir": "off"}, "redirect_dir", "cannot change"),
    ],
)
def test_options_are_refused(
    given: Mapping[str, str], recorded: Mapping[str, str] | None, option: str, reason: str
) -> None:
    """Unknown, impossible and changed options are errors that name the option."""
    with pytest.raises(errors.InvalidOption, match=reason) as caught:
        options.parse(given, recorded)

    assert caught.value.option == option


def test_a_base_layer_needs_no_overlay() -> None:
    """A single directory is bound, read-only in a view."""
    assert layout.writable("/l/a", [], Settings()) == (Mount("bind", "/l/a/diff"),)
    assert layout.view("/l/a", [], Settings()) == (Mount("bind", "/l/a/diff", readonly=True),)


def test_lowers_are_nearest_first() -> None:
    """The kernel is given the nearest parent first, then upper and work, then every option that defaults vary in."""
    (plan,) = layout.writable("/l/c", ["/l/b", "/l/a"], Settings())

    assert plan == Mount(
        "overlay",
        "/l/c",
        (
            ("lowerdir+", "/l/b/diff"),
            ("lowerdir+", "/l/a/diff"),
            ("upperdir", "/l/c/diff"),
            ("workdir", "/l/c/work"),
            ("index", "off"),
            ("metacopy", "off"),
            ("redirect_dir", "nofollow"),
            ("xino", "off"),
        ),
    )


def test_a_view_has_no_upper() -> None:
    """A view of a stack is made of lowers only, and in a user namespace of its own marks."""
    (plan,) = layout.view("/l/b", ["/l/a"], Settings(user_xattrs=True))

    assert plan.readonly
    assert plan.options == (
        ("lowerdir+", "/l/b/diff"),
        ("lowerdir+", "/l/a/diff"),
        ("userxattr", None),
        ("index", "off"),
        ("xino", "off"),
    )
