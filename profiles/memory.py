"""Peak memory of this process on the host."""

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_host_bytes() -> int | None:
    """Largest resident set of this process so far, in bytes, mapped libraries included; None where it is unknown.

    On Linux this is VmHWM, which belongs to the program that runs now; ``ru_maxrss`` would still hold the size that
    the parent had when it forked.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
