"""What these tests share: stores, and images to bring into them."""

import os
import sys

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, room) for room in ("store", "images")]

from operations import memory  # noqa: E402 - after the path
from storetools import driver, opened, store, tars  # noqa: E402 - after the path

__all__ = ["driver", "memory", "opened", "store", "tars"]
