"""How long work tells that it is alive, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """Who listens to long work."""

    def __call__(self, stage: str, done: int, total: int, detail: str = "", /) -> None:
        """Hear that ``stage`` stands at ``done`` of ``total``.

        Args:
            stage: what is done; the same words as long as it lasts.
            done: how much of it is done.
            total: how much there is; 0 where that is unknown (a heartbeat).
            detail: where it stands in other words, which change with every call: ``"epoch 3 of 30, …"``.
        """
        ...


def silent(stage: str, done: int, total: int, detail: str = "", /) -> None:
    """A listener that listens to nothing."""
