import dataclasses

import pytest

from lineproof.core.size import size_text
from lineproof.detectors.training.shape import shape_notice


@pytest.mark.parametrize(
    ("frame", "resized", "kept"),
    [
        ([400, 1200], [256, 256], "160x448"),
        ([1200, 400], 256, "448x160"),
        ([900, 900], [128, 384], "224x224"),
        ((100, 100), [64, 192], "96x96"),
    ],
)
def test_a_squeezed_image_is_said_and_what_would_keep_its_shape(frame, resized, kept):
    (sentence,) = shape_notice(frame, resized)
    assert (
        f"images of {frame[0]}x{frame[1]} are resized to {size_text(resized)}, which squeezes them 3.0-fold" in sentence
    )
    assert f"--image-size {kept} would keep their proportions" in sentence


@pytest.mark.parametrize(("frame", "resized"), [([400, 1200], [128, 384]), ([480, 640], 256), ([900, 900], [256, 384])])
def test_a_shape_that_is_nearly_kept_is_no_matter(frame, resized):
    assert shape_notice(frame, resized) == ()


def test_a_training_says_it(trained):
    record = dataclasses.replace(trained.record, frame=(96, 288))
    assert "squeezes them 3.0-fold" in "\n".join(dataclasses.replace(trained, record=record).summary_lines())
    assert "squeezes" not in "\n".join(trained.summary_lines())


def test_the_report_of_a_fit_is_for_people(trained):
    fit = {"bank_size": 60, "image network": {"epochs": 2, "best_holdout_loss": 0.8139375448226929}}
    record = dataclasses.replace(trained.record, fit=fit)
    lines = dataclasses.replace(trained, record=record).summary_lines()
    assert "bank_size 60, image network (epochs 2, best_holdout_loss 0.813938)" in lines
