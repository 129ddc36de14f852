"""Pieces of messages: numbers of things, and what another message says."""


def counted(number: int, one: str, many: str = "") -> str:
    """``1 image``, ``2 images``: a number and what it counts.

    Args:
        number: how many there are.
        one: words for one of them, such as ``"image"`` or ``"verdict is"``.
        many: words for any other number; "" for those of one with an s.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def clause(error: Exception) -> str:
    """What an error says as a part of a longer sentence: without the full stop that ours end in."""
    return str(error).removesuffix(".")
