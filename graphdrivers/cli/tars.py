"""``graphdriver layer apply`` and ``layer diff``: tars into layers and out of them."""

import contextlib
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, TypeVar, cast

import attrs
import click
import zstandard

from graphdrivers.archive import compression
from graphdrivers.cli import completing, files, home, output, owners
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.model import Applied, Limits, Profile

_Command = TypeVar("_Command", bound=Callable[..., Any])

_CHUNK = 1 << 20
"""Bytes copied at a time."""

_GZIP = 31
"""``wbits`` that make zlib write a gzip header: its name and time fields are empty, so the bytes are reproducible."""


@click.command(epilog="Example: graphdriver layer apply base rootfs.tar.gz")
@click.argument("name", shell_complete=completing.layers)
@click.argument("tar", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--headers", metavar="FILE", help="Keep the header record, which gives back the identical tar.")
@global_options
@click.pass_obj
def apply(settings: Settings, name: str, tar: str, headers: str | None) -> None:
    """Unpack TAR into the writable layer NAME; print its DiffID and size.

    TAR is a file or - for stdin, plain or compressed with gzip, zstd, xz or
    bzip2. When it is refused half way, the layer is of no use any more: remove it.
    """
    limits = Limits()
    owners.refuse_own(settings.root, name)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(home.opened(settings))
        source = stack.enter_context(files.reading(tar))
        stack.enter_context(place.locked(name))
        place.check_filled(name)
        record = None if headers is None else stack.enter_context(files.writing(headers))
        report = stack.enter_context(_progress(settings, tar, source))
        plain = stack.enter_context(compression.open_plain(cast("BinaryIO", source), limits))
        with place.filling(name):
            applied = place.driver.apply(name, plain, headers=record, limits=limits, progress=report)
    _show(settings, applied)


def _show(settings: Settings, applied: Applied) -> None:
    for note in applied.notes:
        output.message(settings, f"graphdriver: note: {note}")
    if settings.json:
        output.document(attrs.asdict(applied))
        return
    click.echo(applied.diff_id)
    entries = "entry" if applied.entries == 1 else "entries"
    output.message(settings, f"{applied.entries} {entries}, {output.human_size(applied.size)}")


@contextlib.contextmanager
def _progress(settings: Settings, path: str, source: files.Source) -> Iterator[Callable[[int], None]]:
    """Show how much of the (compressed) file is read; for a pipe, how much tar came out of it."""
    label = "stdin" if path == "-" else os.path.basename(path)
    total = _length(source)
    with output.progress(settings, label, total) as show:
        if total is None:
            yield show
        else:
            yield lambda _consumed: show(os.lseek(source.fileno(), 0, os.SEEK_CUR))


def _length(source: files.Source) -> int | None:
    found = os.fstat(source.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


class _Compressor(Protocol):
    """What zlib's and zstandard's compressors have in common."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Uncompressed:
    """Compression that leaves everything as it is."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


_COMPRESSORS: dict[str, Callable[[], _Compressor]] = {
    "none": _Uncompressed,
    "gzip": lambda: zlib.compressobj(6, zlib.DEFLATED, _GZIP),
    "zstd": lambda: zstandard.ZstdCompressor(level=3).compressobj(),
}


def profile_option(command: _Command) -> _Command:
    """Let a command that writes a tar take ``--profile``."""
    option = click.option(
        "--profile",
        type=click.Choice([str(profile) for profile in Profile]),
        default="full",
        show_default=True,
        help="How much: 'oci' is what Docker would write, 'full' all times, attributes and holes.",
    )
    return option(command)


def compress_option(command: _Command) -> _Command:
    """Let a command that writes a tar take ``--compress``."""
    option = click.option(
        "--compress",
        type=click.Choice(list(_COMPRESSORS)),
        default="none",
        show_default=True,
        help="Compress, with no name or time in the header.",
    )
    return option(command)


@click.command(epilog="Example: graphdriver layer diff web -o web.tar.gz --compress gzip")
@click.argument("name", shell_complete=completing.layers)
@click.option("-o", "--output", "target", default="-", metavar="FILE", help="Where to; - (the default) is stdout.")
@profile_option
@compress_option
@global_options
@click.pass_obj
def diff(settings: Settings, name: str, target: str, profile: str, compress: str) -> None:
    """Write what the layer NAME changes as an OCI layer tar.

    The same content gives the same bytes, whichever driver holds it. Times
    after SOURCE_DATE_EPOCH, where it is set, become that time. FILE appears
    when it is complete; an interrupted diff leaves nothing.
    """
    refuse_json_on_stdout(settings, target)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(home.opened(settings))
        stack.enter_context(place.locked(name))
        place.check_filled(name)
        epoch = settings.source_date_epoch
        tar = stack.enter_context(place.driver.diff(name, profile=Profile(profile), source_date_epoch=epoch))
        write(settings, tar, target, compress, f"diff {name}")


def refuse_json_on_stdout(settings: Settings, target: str) -> None:
    """Refuse to print a document where a tar goes.

    Raises:
        click.UsageError: both would go to stdout.
    """
    if settings.json and target == "-":
        raise click.UsageError("--json prints to stdout, where the tar would go: add -o FILE")


def write(settings: Settings, tar: BinaryIO, target: str, compress: str, label: str) -> None:
    """Write a tar, compressed as asked for, to a file or stdout, and tell how much it was."""
    with files.writing(target) as sink, output.progress(settings, label, None) as report:
        written = _copy(tar, sink, _COMPRESSORS[compress](), report)
    if settings.json:
        output.document({"path": target, "size": written})
    elif target != "-" and sys.stderr.isatty():
        output.message(settings, f"{output.human_size(written)} written")


def _copy(source: BinaryIO, sink: BinaryIO, compressor: _Compressor, report: Callable[[int], None]) -> int:
    """Copy everything through a compressor; give the bytes written."""
    done = written = 0
    while chunk := source.read(_CHUNK):
        data = compressor.compress(chunk)
        sink.write(data)
        done += len(chunk)
        written += len(data)
        report(done)
    data = compressor.flush()
    sink.write(data)
    return written + len(data)
