"""Cold start and peak memory, measured in a fresh interpreter.

``python -m lineproof.profiles.cold_start BUNDLE ENGINE OPTIONS BATCHES`` opens the bundle, judges one frame, and then
runs each batch size in ascending order. It writes two lines of JSON: the first at the first verdict, the second with
the peaks of memory.

What the cold start includes: starting Python, importing lineproof and the engine's library, opening the bundle with
all its hashes, opening the engine, and the first verdict on one frame. What it does not: reading that frame, and
reading files from a cold disk (they are usually in the page cache already).
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, final

from ..bundle.store import Bundle, open_bundle
from ..core.errors import LineproofError
from ..runtime.engine import Engine, EngineOptions, open_engine, predict, proof_name
from .frames import tiled_frames
from .memory import peak_host_bytes

#: Calls at each batch size before the peak is read: allocators grow for more than one call.
_NUM_CALLS = 3
_NS_PER_MS = 1e6


@final
@dataclass(frozen=True)
class Memory:
    """Peak memory of a fresh process up to and including this batch size.

    Attributes:
        batch: number of frames per call.
        host_bytes: largest resident set in bytes, interpreter and libraries included; None where the system does not
            report it.
        device_bytes: device memory that the engine holds in bytes; None for a CPU engine.
    """

    batch: int
    host_bytes: int | None
    device_bytes: int | None


@final
@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """One fresh process, from its start to the first verdict.

    Attributes:
        total_ms: time in ms from before the process was started to its first verdict, measured by the parent.
        python_and_imports_ms: time in ms for starting Python and importing lineproof: the rest of the total.
        open_bundle_ms: time in ms for reading the manifest and checking the hashes.
        open_engine_ms: time in ms for importing the engine's library, loading and compiling the model.
        first_verdict_ms: time in ms for the first frame.
        memory: peak memory per batch size, batch sizes ascending.
    """

    total_ms: float
    python_and_imports_ms: float
    open_bundle_ms: float
    open_engine_ms: float
    first_verdict_ms: float
    memory: tuple[Memory, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def measure_cold_start(
    bundle: Bundle, engine: str, *, options: EngineOptions, batches: Sequence[int] = (1,)
) -> ColdStart:
    """Start a fresh interpreter that judges one frame of the bundle, and time it from outside.

    Args:
        bundle: bundle to open.
        engine: name of the engine.
        options: choices about the engine.
        batches: batch sizes at which the peak memory is measured.

    Raises:
        LineproofError: the process failed; the message quotes the end of its output.
    """
    arguments = [str(bundle.path), engine, json.dumps(dataclasses.asdict(options)), json.dumps(sorted(set(batches)))]
    command = [sys.executable, "-m", "lineproof.profiles.cold_start", *arguments]
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter_ns()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, env=_environment()) as process:  # noqa: S603
            try:
                if process.stdout is None:
                    raise LineproofError("The fresh process has no standard output to read. Profile without it.")
                first = process.stdout.readline()
                end = time.perf_counter_ns()
                second = process.stdout.readline()
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0 or not second:
            raise _failure(engine, process.returncode, said)
    return _assemble(end - start, json.loads(first), json.loads(second))


def _environment() -> dict[str, str]:
    """Environment of this process, with PYTHONPATH such that the fresh one can import lineproof as this one did."""
    entries = [entry for entry in sys.path if (Path(entry or ".") / "lineproof" / "__init__.py").is_file()]
    paths = [*(str(Path(entry or ".").absolute()) for entry in entries), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _failure(engine: str, status: int, said: IO[bytes]) -> LineproofError:
    said.seek(0)
    tail = said.read().decode(errors="replace").strip().splitlines()[-5:]
    return LineproofError(
        f"A fresh process that opens engine {engine} ended with status {status} before it had measured anything: "
        f"{' / '.join(tail) or 'it said nothing'}. Run `lineproof run` on the bundle with this engine to see it fail, "
        "or profile without the cold start."
    )


def _assemble(total_ns: int, start: dict[str, int], memory: list[dict[str, Any]]) -> ColdStart:
    total_ns -= start.pop("load_frame_ns")
    return ColdStart(
        total_ms=total_ns / _NS_PER_MS,
        python_and_imports_ms=(total_ns - sum(start.values())) / _NS_PER_MS,
        open_bundle_ms=start["open_bundle_ns"] / _NS_PER_MS,
        open_engine_ms=start["open_engine_ns"] / _NS_PER_MS,
        first_verdict_ms=start["first_verdict_ns"] / _NS_PER_MS,
        memory=tuple(Memory(**item) for item in memory),
    )


def main(arguments: Sequence[str]) -> None:
    """Measure in the fresh process.

    Args:
        arguments: BUNDLE ENGINE OPTIONS BATCHES, the last two as JSON.
    """
    path, name, options, batches = arguments
    # Native libraries print to standard output as they like; it must hold nothing but the two lines of JSON.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for answer in _measure(path, name, EngineOptions(**json.loads(options)), json.loads(batches)):
            print(json.dumps(answer), file=answers, flush=True)


def _measure(path: str, name: str, options: EngineOptions, batches: Sequence[int]) -> Iterator[Any]:
    times = [time.perf_counter_ns()]
    bundle = open_bundle(path)
    times.append(time.perf_counter_ns())
    frames = tiled_frames(bundle, 1)
    times.append(time.perf_counter_ns())
    with closing(open_engine(bundle, name, options=options)) as engine:
        times.append(time.perf_counter_ns())
        bundle.manifest.threshold_for(proof_name(name, options)).is_defect(predict(engine, frames).score)
        times.append(time.perf_counter_ns())
        names = ("open_bundle_ns", "load_frame_ns", "open_engine_ns", "first_verdict_ns")
        spans = (after - before for before, after in pairwise(times))
        yield dict(zip(names, spans, strict=True))
        yield [_peaks(bundle, engine, batch) for batch in batches]


def _peaks(bundle: Bundle, engine: Engine, batch: int) -> dict[str, Any]:
    frames = tiled_frames(bundle, batch)
    for _ in range(_NUM_CALLS):
        predict(engine, frames)
    return dataclasses.asdict(Memory(batch, peak_host_bytes(), engine.device_bytes()))


if __name__ == "__main__":
    main(sys.argv[1:])
