"""Atomic writes of files and folders: a kill leaves the old content or the new, never a part of it."""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder`` to the disk."""
    for item in sorted(folder.rglob("*"), reverse=True):
        _sync(item)
    _sync(folder)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new."""
    with open_atomic(path) as stream:
        stream.write(content)


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written that takes its place in one step when the block ends; an error leaves the old one.

    Raises:
        OSError: it cannot be written; ``filename`` is ``path`` and not the temporary name.
    """
    with new_file(path) as temporary, temporary.open("wb") as stream:
        yield stream


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A name to write a file under, which takes the place of ``path`` in one step when the block ends.

    For libraries that write files by name; an error in the block leaves what was there.

    Raises:
        OSError: it cannot be written; ``filename`` is ``path`` and not the temporary name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        # Where the folder cannot be written there is nothing to remove, and the first error is the one that counts.
        with contextlib.suppress(OSError):
            temporary.unlink()


def replace_directory(new: Path, target: Path) -> None:
    """Put folder ``new`` at ``target``; what was there goes away.

    What was there waits beside it under ``.NAME.old`` until it is deleted; see ``exchange_directory``.
    """
    if not target.exists():
        os.rename(new, target)
        _sync(target.parent)
        return
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    exchange_directory(new, target, old=old)
    shutil.rmtree(old)


def exchange_directory(new: Path, target: Path, *, old: Path) -> None:
    """Put folder ``new`` at ``target``, and what was there at ``old``, a name that is free.

    On Linux an existing folder is exchanged in one system call (renameat2, RENAME_EXCHANGE), so that ``target`` names
    the old or the new content at every moment. Elsewhere two renames are needed.
    """
    if _exchange(new, target):
        os.rename(new, old)
    else:
        os.rename(target, old)
        os.rename(new, target)
    _sync(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(AttributeError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
            return True
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(second))
    return False


def write_all(handle: int, data: bytes) -> None:
    """Write all of the bytes to a file descriptor, which may take them in pieces."""
    while data:
        data = data[os.write(handle, data) :]


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON atomically, keys sorted."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
