"""A thread binds itself to limits for a while."""

import threading

import pytest

from graphdrivers.linux import capabilities, namespaces


def test_the_capability_is_given_up_and_taken_back(root: None) -> None:
    """Inside the block it is gone, also for threads that are started there; afterwards it is back, errors or not."""
    del root
    if not namespaces.has_capability("CAP_SYS_RESOURCE"):
        pytest.skip("needs CAP_SYS_RESOURCE")
    seen: list[bool] = []
    with pytest.raises(RuntimeError, match="stop"), capabilities.bound_by_limits():  # noqa: PT012 - all is inside
        thread = threading.Thread(target=lambda: seen.append(namespaces.has_capability("CAP_SYS_RESOURCE")))
        thread.start()
        thread.join()
        seen.append(namespaces.has_capability("CAP_SYS_RESOURCE"))
        seen.append(namespaces.has_capability("CAP_CHOWN"))
        with capabilities.bound_by_limits():  # nothing to give up any more
            pass
        raise RuntimeError("stop")

    assert seen == [False, False, True]
    assert namespaces.has_capability("CAP_SYS_RESOURCE")
