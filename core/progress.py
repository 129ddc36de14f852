"""Progress of long work: the protocol of those who listen to it, and a listener that ignores it."""

from typing import Protocol


class Progress(Protocol):
    """A listener to the progress of long work, such as a bar on a terminal."""

    def __call__(self, stage: str, done: int, total: int, detail: str = "", /) -> None:
        """Take note that ``done`` of ``total`` steps of ``stage`` are done.

        Args:
            stage: name of the work; the same words as long as it lasts.
            done: number of steps that are done.
            total: number of steps in all; 0 where that is unknown (a heartbeat).
            detail: further words, which may change with every call: ``"epoch 3 of 30, …"``.
        """
        ...


def silent(stage: str, done: int, total: int, detail: str = "", /) -> None:
    """Ignore the progress: the listener of whoever wants none."""
