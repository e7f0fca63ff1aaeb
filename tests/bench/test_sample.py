"""The sample image is a valid one, and the same every time."""

import pathlib
import subprocess

import pytest

from graphdrivers.archive.compression import open_plain
from graphdrivers.archive.digests import Digester
from graphdrivers.archive.reader import TarReader
from graphdrivers.bench import sample
from graphdrivers.images.opening import open_image
from graphdrivers.model import Limits

SMALL = 4 << 20


def test_sample_is_an_image(tmp_path: pathlib.Path) -> None:
    """It opens, its layers have their DiffIDs, and they hold what layers are made of."""
    seen: list[int] = []
    folder = sample.build_sample(str(tmp_path / "sample"), size_max=SMALL, progress=seen.append)
    names = set()
    with open_image(folder, reference=sample.REFERENCE) as image:
        assert len(image.layers) == 3
        for layer in image.layers:
            digester = Digester()
            with image.open_layer(layer) as stored, open_plain(stored, Limits()) as plain:
                reader = TarReader(plain, tap=digester.put)
                while entry := reader.next():
                    names.add(entry.name.rpartition(b"/")[2])
                reader.drain()
            assert digester.close() == layer.diff_id
    assert {b".wh..wh..opq", b".wh.000", b"motd", b"setuid"} <= names
    assert seen[0] > 0


def test_sample_is_reproducible(tmp_path: pathlib.Path) -> None:
    """Two builds are equal, file by file."""
    first, second = (sample.build_sample(str(tmp_path / name), size_max=SMALL) for name in ("a", "b"))
    subprocess.run(["diff", "--recursive", first, second], check=True)


def test_existing_folder_is_left_alone(tmp_path: pathlib.Path) -> None:
    """Nothing is built over what is there."""
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    with pytest.raises(FileExistsError):
        sample.build_sample(str(tmp_path))
