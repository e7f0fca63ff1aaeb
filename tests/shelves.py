"""Distributions made up on the spot, as pip would have installed them: for tests of finding and loading drivers."""

import pathlib
import textwrap


def put(
    site: pathlib.Path, title: str, points: str, modules: dict[str, str], metadata: str | None = "Name: {title}"
) -> None:
    """Install a distribution of version 1.0.

    Args:
        site: where to; on the path of whoever is to see it.
        title: its name.
        points: its ``entry_points.txt``.
        modules: source by name.
        metadata: its own lines of ``METADATA``; ``None`` leaves the file out.
    """
    info = site / f"{title.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    if metadata is not None:
        text = f"Metadata-Version: 2.1\nVersion: 1.0\n{metadata.format(title=title)}\n"
        (info / "METADATA").write_bytes(text.encode("utf-8", "surrogateescape"))
    (info / "entry_points.txt").write_bytes(points.encode("utf-8", "surrogateescape"))
    for module, source in modules.items():
        (site / f"{module}.py").write_text(textwrap.dedent(source))
