"""How long work tells that it is alive, without knowing who listens."""

from collections.abc import Callable

#: Called as ``progress(stage, done, total)``; ``total`` is 0 where the length is unknown (a heartbeat).
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """A listener that listens to nothing."""
