"""The progress of a training, in words."""

import pytest

pytest.importorskip("torch")

from lineproof.detectors.training.pace import Pace, duration_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"), (0.2, "1 s"), (119.0, "119 s"), (119.5, "2 min"), (121.0, "3 min"), (3540.0, "59 min"),
        (3541.0, "1 h 0 min"), (12000.0, "3 h 20 min"),
    ],
)  # fmt: skip
def test_durations_are_rounded_up(seconds, words):
    assert duration_words(seconds) == words


def pace(**changed):
    return Pace(**{"epoch": 3, "epochs": 30, "step": 2, "steps": 8, "seconds": 36.0, **changed})


def test_the_words_name_epoch_step_losses_and_what_is_left():
    # 18 of 240 steps in 36 s: 222 steps of 2 s are left.
    assert pace().words({"training": 0.123456}) == (
        "epoch 3 of 30, step 2 of 8, training loss 0.1235, at most 8 min left"
    )
    assert "critic loss -12.5, generator loss 1e-05" in pace().words({"critic": -12.5, "generator": 1e-5})
    assert (pace().done, pace().total) == (18, 240)


def test_a_time_limit_ends_it_earlier_but_not_within_an_epoch():
    assert pace().seconds_left() == 444.0
    assert pace(limit_s=100.0).seconds_left() == 64.0
    # Six steps of the epoch are left, whatever the limit.
    assert pace(limit_s=36.5).seconds_left() == 12.0
    assert pace(epoch=30, step=8).seconds_left() == 0.0
