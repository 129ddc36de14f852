"""What the operating system refused, in one sentence: the path, the reason in words, what to do."""

import errno
import os

_ADVICE = {
    errno.ENOSPC: "Free some space there, or name another folder",
    errno.EDQUOT: "Free some space there, or name another folder",
    errno.EROFS: "Name a folder that can be written",
    errno.EACCES: "Change its permissions, or name another place",
    errno.EPERM: "Change its permissions, or name another place",
    errno.ENAMETOOLONG: "Give it a shorter name",
    errno.ENOENT: "Check the path",
    errno.ENOTDIR: "A part of the path is a file: check the path",
    errno.EISDIR: "It is a folder: name a file",
    errno.EMFILE: "Close other files, or raise the limit (ulimit -n)",
    errno.EIO: "The disk or the network drive failed: look after it",
    errno.ESTALE: "The network drive was mounted anew meanwhile: run it again",
    errno.ETXTBSY: "Another program uses it: close that one",
}


def os_error_words(error: OSError, *, place: str = "") -> str:
    """One sentence about an error of the operating system.

    Args:
        error: what was raised.
        place: what it was about, where the error itself names no path.

    Returns:
        ``PATH: reason. What to do.``, without the number of the error.
    """
    paths = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = " and ".join(paths) or place
    reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
    reason = reason[:1].lower() + reason[1:]
    advice = _ADVICE.get(error.errno or 0, "")
    return f"{where + ': ' if where else ''}{reason}.{' ' + advice + '.' if advice else ''}"
