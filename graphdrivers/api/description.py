"""What people say about a new image."""

import datetime as dt
from collections.abc import Sequence

import attrs

from graphdrivers.images.descriptors import Platform


@attrs.frozen(kw_only=True)
class Description:
    """What people say about a new image."""

    author: str = ""
    comment: str = ""
    created: dt.datetime | None = None
    """When it was made, with a time zone; by default now. With the same one the same content gives the same image."""
    created_by: str = ""
    """What made its layer, for the history."""
    changes: Sequence[str] = ()
    """To its configuration, as ``docker commit --change`` takes them (``CMD ["/bin/sh"]``); see `images.changes`."""
    platform: Platform | None = None
    """For which machine; by default the base's, or this one."""
