import gc

import numpy as np
import pytest

from lineproof.core.errors import UsageError
from lineproof.profiles.timing import Schedule, time_in_turn
from lineproof.runtime.engine import open_engine


def constant(*costs_ns):
    return lambda _: costs_ns


def opened(bundle, *names):
    return {name: open_engine(bundle, name) for name in names}


def test_stages_are_timed_apart_and_warm_up_is_not_timed(tiny_bundle, add_timed, clock):
    add_timed("slow", lambda number: (1, 1000 if number < 3 else 10, 2))
    frames = tiny_bundle.golden().frames[:2]
    samples = time_in_turn(
        opened(tiny_bundle, "slow"),
        frames,
        schedule=Schedule(num_runs=5, num_warmup=2, block_size=10, num_lead_in=1),
        clock=clock,
    )
    np.testing.assert_array_equal(samples["slow"].stages_ns, [[1, 10, 2]] * 5)
    assert samples["slow"].device_ns is None
    assert add_timed.calls == [("slow", 2)] * (2 + 1 + 5)


def test_engines_take_turns_in_blocks(tiny_bundle, add_timed, clock):
    add_timed("first", constant(1, 1, 1))
    add_timed("second", constant(2, 2, 2), device_ns=2)
    heard = []
    samples = time_in_turn(
        opened(tiny_bundle, "first", "second"),
        tiny_bundle.golden().frames[:1],
        schedule=Schedule(num_runs=5, num_warmup=0, block_size=2, pause_ms=0, num_lead_in=1),
        progress=lambda *event: heard.append(event),
        clock=clock,
    )
    order = [name for name, _ in add_timed.calls]
    assert order == (["first"] * 3 + ["second"] * 3) * 2 + ["first"] * 2 + ["second"] * 2
    np.testing.assert_array_equal(samples["first"].total_ns, [3] * 5)
    np.testing.assert_array_equal(samples["second"].total_ns, [6] * 5)
    np.testing.assert_array_equal(samples["second"].device_ns, [2] * 5)
    assert heard == [("batch 1", 2, 5), ("batch 1", 4, 5), ("batch 1", 5, 5)]


def test_garbage_collection_is_off_while_timing_and_as_before_afterwards(tiny_bundle, add_timed, clock):
    states = []

    def costs(_):
        states.append(gc.isenabled())
        return (1, 1, 1)

    add_timed("engine", costs)
    assert gc.isenabled()
    engines, schedule = opened(tiny_bundle, "engine"), Schedule(num_runs=1, num_warmup=1, num_lead_in=1)
    time_in_turn(engines, tiny_bundle.golden().frames[:1], schedule=schedule, clock=clock)
    assert states == [True] * 6 + [False] * 3
    assert gc.isenabled()


def test_engines_rest_before_their_turn(tiny_bundle, add_timed, clock, monkeypatch):
    rests = []
    monkeypatch.setattr("time.sleep", rests.append)
    add_timed("first", constant(1, 1, 1))
    add_timed("second", constant(1, 1, 1))
    frames, schedule = tiny_bundle.golden().frames[:1], Schedule(num_runs=2, num_warmup=0, block_size=1, pause_ms=20)
    time_in_turn(opened(tiny_bundle, "first"), frames, schedule=schedule, clock=clock)
    assert rests == []
    time_in_turn(opened(tiny_bundle, "first", "second"), frames, schedule=schedule, clock=clock)
    assert rests == [0.02] * 4


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("num_runs", 0, 1), ("num_warmup", -1, 0), ("block_size", 0, 1), ("pause_ms", -1.0, 0), ("num_lead_in", -1, 0)],
)
def test_impossible_schedule_is_refused(name, value, least):
    with pytest.raises(UsageError, match=f"{name} is {value}; expected at least {least}"):
        Schedule(**{name: value})
