"""The timed loop. It knows engines only by their protocol and runs several in turn, so that noise hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np

from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..runtime.engine import Engine, Frames, predict
from .latency import Samples

Clock = Callable[[], int]


@final
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Numbers of calls, and the rhythm in which engines take turns.

    Attributes:
        num_runs: number of timed calls per engine and batch size.
        num_warmup: number of untimed calls of each engine before the first timed one, at each batch size.
        block_size: number of timed calls of one engine before the next engine's turn.
        pause_ms: rest in ms before each block where engines take turns. Worker threads of the engine before go on
            spinning for a while and take the cores from the next one: without a rest the first timed call of
            OpenVINO after ONNX Runtime was seen to take half as long again.
        num_lead_in: number of untimed calls between the rest and the block, since the caches hold the data of the
            engine before.

    Raises:
        UsageError: A number is too small.
    """

    num_runs: int = 200
    num_warmup: int = 20
    block_size: int = 10
    pause_ms: float = 50.0
    num_lead_in: int = 2

    def __post_init__(self) -> None:
        least = {"num_runs": 1, "num_warmup": 0, "block_size": 1, "pause_ms": 0, "num_lead_in": 0}
        for name, limit in least.items():
            if not getattr(self, name) >= limit:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least {limit}.")


@final
@dataclass(frozen=True, eq=False)
class _Block:
    """Times of one block in ns: the stages of R calls, and the device's own times, empty where it has none."""

    stages_ns: list[tuple[int, int, int]]
    device_ns: list[int]


def time_in_turn(
    engines: Mapping[str, Engine],
    frames: Frames,
    *,
    schedule: Schedule,
    progress: Progress = silent,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Samples]:
    """Time every engine on the same batch, block by block, round-robin.

    Python's garbage collector is off while a block is timed and on between blocks.

    Args:
        engines: open engines by name.
        frames: frames (N, H, W, C), the same in every call.
        schedule: numbers of timed and untimed calls, and the size of the blocks.
        progress: called after each block.
        clock: monotonic clock in ns.

    Returns:
        All samples by engine, in the order of the calls.
    """
    for engine in engines.values():
        for _ in range(schedule.num_warmup):
            predict(engine, frames)
    blocks: dict[str, list[_Block]] = {name: [] for name in engines}
    done = 0
    while done < schedule.num_runs:
        num_runs = min(schedule.block_size, schedule.num_runs - done)
        for name, engine in engines.items():
            if len(engines) > 1:
                time.sleep(schedule.pause_ms / 1000.0)
            for _ in range(schedule.num_lead_in):
                predict(engine, frames)
            with _no_garbage_collection():
                blocks[name].append(_time_block(engine, frames, num_runs, clock))
        done += num_runs
        progress(f"batch {len(frames)}", done, schedule.num_runs)
    return {name: _join(timed) for name, timed in blocks.items()}


def _time_block(engine: Engine, frames: Frames, num_runs: int, clock: Clock) -> _Block:
    block = _Block([], [])
    for _ in range(num_runs):
        start = clock()
        engine.upload(frames)
        uploaded = clock()
        engine.execute()
        executed = clock()
        engine.download()
        end = clock()
        block.stages_ns.append((uploaded - start, executed - uploaded, end - executed))
        device_ns = engine.device_time_ns()
        if device_ns is not None:
            block.device_ns.append(device_ns)
    return block


def _join(blocks: list[_Block]) -> Samples:
    stages_ns = np.array([row for block in blocks for row in block.stages_ns], dtype=np.int64)
    device_ns = np.array([value for block in blocks for value in block.device_ns], dtype=np.int64)
    # A device that timed only some of its calls has no series that could stand beside the others.
    return Samples(stages_ns, device_ns if len(device_ns) == len(stages_ns) else None)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
