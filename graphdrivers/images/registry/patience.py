"""How long to wait for a registry, and how often to ask it again."""

import attrs

_PAUSE_MAX = 8.0


@attrs.frozen
class Patience:
    """The limits of one connection; times are in seconds."""

    timeout: float = 30.0
    """For a connection, and for each piece of an answer."""
    attempts: int = 5
    """For one request, or for the next stretch of a blob. Only what may succeed the next time is tried again."""
    pause: float = 0.5
    """Before the second attempt; twice as long before each further one, up to 8 seconds."""
    longest: float = 60.0
    """The longest pause that a registry may ask for (``Retry-After``); it fails at once if it asks for more."""
    cancelling: float = 0.5
    """For a registry to be told that an upload is given up. A push that failed or was interrupted ends by then."""

    def before_next(self, failed: int, asked: int = 0) -> float | None:
        """Return how long to wait after ``failed`` attempts, or ``None`` to give up.

        Args:
            failed: attempts so far, from 1.
            asked: what the registry asked for.
        """
        if failed >= self.attempts or asked > self.longest:
            return None
        return max(asked, min(self.pause * 2.0 ** (failed - 1), max(_PAUSE_MAX, self.pause)))


USUAL = Patience()
