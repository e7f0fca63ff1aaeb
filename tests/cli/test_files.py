"""Files that are whole or not there, and reads that can be called off."""

import errno
import os
import pathlib
import signal
import threading

import pytest

from graphdrivers.cli import files


def test_written_file_appears_whole(tmp_path: pathlib.Path) -> None:
    """Nothing is at the place until the block ends; then all is, with the umask's permissions."""
    place = tmp_path / "out"
    with files.writing(str(place)) as file:
        file.write(b"content")
        assert not place.exists()

    assert place.read_bytes() == b"content"
    assert place.stat().st_mode & 0o777 == 0o666 & ~files._umask()
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_failure_leaves_what_was_there(tmp_path: pathlib.Path, error: type[BaseException]) -> None:
    """Whatever ends the block: the old content stays and no temporary file does."""
    place = tmp_path / "out"
    place.write_bytes(b"old")

    def fail() -> None:
        with files.writing(str(place)) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail()
    assert place.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out"]


def test_links_and_special_files_stay_what_they_are(tmp_path: pathlib.Path) -> None:
    """A symbolic link keeps pointing, its target is replaced; a FIFO or device is written to."""
    (tmp_path / "link").symlink_to("target")
    with files.writing(str(tmp_path / "link")) as file:
        file.write(b"content")
    with files.writing(os.devnull) as file:
        file.write(b"content")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"content"
    assert not os.path.isfile(os.devnull)


def test_missing_folder_is_named(tmp_path: pathlib.Path) -> None:
    """The error is about the folder, not about a temporary name that nobody chose."""
    with pytest.raises(FileNotFoundError) as caught, files.writing(str(tmp_path / "none" / "out")):
        pass
    assert caught.value.filename == str(tmp_path / "none")


def test_reading(tmp_path: pathlib.Path) -> None:
    """A file is read to its end."""
    (tmp_path / "in").write_bytes(b"x" * 100_000)
    with files.reading(str(tmp_path / "in")) as source:
        assert source.read(10) == b"x" * 10
        assert len(source.read()) == 99_990
        assert source.read(10) == b""


def test_waiting_read_ends_with_a_signal() -> None:
    """A thread that waits for a writer who never writes is woken when a signal arrives; so is every later read."""
    reader, writer = os.pipe()
    ended: list[int | None] = []

    def read(source: files.Source) -> None:
        try:
            source.read(1)
        except OSError as error:
            ended.append(error.errno)

    before = signal.signal(signal.SIGUSR1, lambda *_arguments: None)
    try:
        with files.reading(f"/dev/fd/{reader}") as source:
            thread = threading.Thread(target=read, args=(source,))
            thread.start()
            os.kill(os.getpid(), signal.SIGUSR1)
            thread.join(10)
            with pytest.raises(OSError, match="cancel"):
                source.read(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(reader)
        os.close(writer)

    assert ended == [errno.ECANCELED]
    assert signal.set_wakeup_fd(-1) == -1
