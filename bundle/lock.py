"""One writer at a time: a lock on a folder that holds between processes and threads, and that a kill releases."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import BusyError

LOCK = ".lock"
_POLL_S = 0.02
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextlib.contextmanager
def exclusive(folder: Path, *, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the only lock on a folder while the block runs.

    The lock is the operating system's, on the file ``.lock`` in the folder: it goes away with the process that holds
    it, however that ends, and it also keeps two threads of one process apart. It is not re-entrant. Where the folder is
    exchanged for another one while this waits, the lock of the new one is taken.

    Args:
        folder: an existing, writable folder.
        what: what is being done, in words, for the error of whoever comes second ("a training run").
        wait_s: how long to wait for another holder, in seconds; 0 gives up at once.

    Raises:
        BusyError: another holder is there and did not finish in that time.
        OSError: the folder cannot be written to.
    """
    deadline = time.monotonic() + wait_s
    while True:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            is_held = _try_lock(handle)
            if is_held and _is_current(handle, folder / LOCK):
                yield
                return
        finally:
            os.close(handle)
        if not is_held:
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"{folder} is in use by another process or thread: {what} needs it alone. Wait for the other one "
                    "to end, or name another folder."
                )
            time.sleep(_POLL_S)


def _is_current(handle: int, path: Path) -> bool:
    """Whether the locked file is still the one that the folder holds now."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True
else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True
