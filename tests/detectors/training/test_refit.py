"""A second fit on all good images: what it learns from, what it keeps of the first, and what resumes."""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import load_file  # noqa: E402

from lineproof.bundle.manifest import RefitRecord  # noqa: E402
from lineproof.bundle.runs.folder import (  # noqa: E402
    CHECKPOINT,
    FIRST_FIT,
    RECORD,
    epochs_kept_words,
    read_first_fit,
    read_record,
    unfinished_words,
)
from lineproof.bundle.runs.record import FirstFit  # noqa: E402
from lineproof.core.errors import BadInputError, LineproofError  # noqa: E402
from lineproof.core.spec import FrameRule  # noqa: E402
from lineproof.data.content import content_hash  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.distance.padim import Padim  # noqa: E402
from lineproof.detectors.flow.fastflow import FastFlow  # noqa: E402
from lineproof.detectors.training.checkpoint import load_detector, score_images  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.refit import Job, refit_job  # noqa: E402
from lineproof.detectors.training.schedules import Schedule  # noqa: E402
from lineproof.detectors.training.task import BatchSource, LossTask, Optimisation  # noqa: E402
from lineproof.detectors.training.train import image_set, split_good, train  # noqa: E402
from lineproof.detectors.training.trainer import Trainer  # noqa: E402

REFIT = TrainOptions(refit=True, save_every_s=1e-9)
CONFIGS = {
    "padim": make_config(
        "padim",
        {"backbone": "test_resnet", "weights": "random", "resize_px": 64, "crop_px": 64, "num_features": 12},
    ),
    "fastflow": make_config(
        "fastflow",
        {"backbone": "test_resnet", "weights": "random", "resize_px": 64, "crop_px": 64, "steps": 1, "epochs": 6,
         "patience": 2, "keep": "best", "batch_size": 4, "learning_rate": 0.3},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def refitted(dataset, tmp_path_factory):
    """A function from a detector's name to its refitted run and record."""
    made = {}

    def get(name):
        if name not in made:
            run = tmp_path_factory.mktemp(name) / "run"
            made[name] = run, train(name, CONFIGS[name], dataset=dataset, run=run, options=REFIT)
        return made[name]

    return get


def fitted_by_hand(name, record, dataset):
    """The tensors of a detector that is fitted once, to all good images, for as many epochs as the first fit kept."""
    fitted, held_out = split_good(dataset, TrainOptions())
    config = CONFIGS[name]
    if name == "fastflow":
        config = dataclasses.replace(config, epochs=record.first_fit["best_epoch"] + 1, patience=0, keep="last")
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    detector = build_detector(name, config)
    rule = FrameRule.of(record.frame)
    images, holdout = (image_set(detector, paths, rule=rule) for paths in ([*fitted, *held_out], held_out))
    detector.fit(images, holdout, context=FitContext())
    return detector.state_dict()


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_detector_is_that_of_a_fit_to_all_good_images(refitted, dataset, name):
    run, record = refitted(name)
    assert_same(load_file(run / CHECKPOINT), fitted_by_hand(name, record, dataset))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_scores_behind_the_threshold_are_those_of_a_fit_without_the_held_out_images(
    refitted, dataset, tmp_path, name
):
    run, record = refitted(name)
    plain = train(name, CONFIGS[name], dataset=dataset, run=tmp_path / "plain")
    assert record.holdout_scores == plain.holdout_scores
    assert record.holdout == plain.holdout
    detector = load_detector(record.detector, run / CHECKPOINT)
    _, held_out = split_good(dataset, TrainOptions())
    own = score_images(detector, image_set(detector, held_out, rule=FrameRule.of(record.frame)))
    assert list(record.refit_scores) == own
    assert own != list(record.holdout_scores)
    assert (plain.training.refit, plain.first_fit, plain.refit_scores) == (None, {}, ())


def test_the_record_says_what_was_fitted_and_what_set_the_threshold(refitted, dataset):
    run, record = refitted("padim")
    fitted, held_out = (tuple(map(content_hash, paths)) for paths in split_good(dataset, TrainOptions()))
    training = record.training
    assert (training.num_images, training.num_holdout) == (10, 2)
    assert training.fitted == fitted + held_out
    assert training.held_out == held_out
    assert training.unlike_held_out == fitted
    assert training.refit == RefitRecord(num_first=8, epochs={})
    assert training.refit_caveat == (
        "Refitted: this threshold was set on the scores that a first fit to 8 images gave 2 held-out ones; the "
        "detector was then fitted again to all 10, these included. What it does at this threshold was not measured on "
        "good parts that it has not seen, and its scores may lie on another scale."
    )
    assert read_record(run) == dataclasses.replace(record, beginning="")


def test_as_many_epochs_as_the_first_fit_kept_and_the_settings_as_they_were_given(refitted):
    _, record = refitted("fastflow")
    kept = record.first_fit["best_epoch"] + 1
    # The rate is so high that patience ends the first fit; which epoch was the best is its report's to say.
    assert record.first_fit["stopped"] == "patience"
    assert 1 < kept < record.first_fit["epochs"]
    assert record.training.refit.epochs == {"training": kept}
    assert record.fit["epochs"] == kept
    assert record.fit["stopped"] == "epochs"
    assert "best_holdout_loss" in record.first_fit
    assert "best_holdout_loss" not in record.fit
    assert "best_former_holdout_loss" in record.fit
    assert (record.detector.parameters["epochs"], record.detector.parameters["patience"]) == (6, 2)


class PulledPlugError(Exception):
    pass


@pytest.mark.parametrize(
    ("num_steps", "kept", "fits_left"),
    # Two steps per epoch of the first fit, then three per epoch of the second.
    [
        (3, "step 1 of epoch 2 of 6", 2),
        ("first", "its first fit", 1),
        ("second", "step 1 of epoch 2 of {} of its refit", 1),
    ],
)
def test_an_interrupted_training_goes_on_to_the_same_bits(
    refitted, dataset, tmp_path, monkeypatch, num_steps, kept, fits_left
):
    whole, record = refitted("fastflow")
    of_first = 2 * record.first_fit["epochs"]
    limit = {"first": of_first, "second": of_first + 4}.get(num_steps, num_steps)
    loss, calls, run = FastFlow.loss, [], tmp_path / "run"

    def pulled(detector, maps):
        calls.append(torch.is_grad_enabled())
        if sum(calls) > limit:
            raise PulledPlugError
        return loss(detector, maps)

    with monkeypatch.context() as patch:
        patch.setattr(FastFlow, "loss", pulled)
        with pytest.raises(PulledPlugError):
            train("fastflow", CONFIGS["fastflow"], dataset=dataset, run=run, options=REFIT)
    assert not (run / RECORD).exists()
    kept = kept.format(record.training.refit.epochs["training"])
    assert epochs_kept_words(run) == kept
    assert f"kept up to {kept})" in unfinished_words(run)
    fit, fits = FastFlow.fit, []
    monkeypatch.setattr(FastFlow, "fit", lambda *given, **named: fits.append(1) or fit(*given, **named))
    resumed = train("fastflow", CONFIGS["fastflow"], dataset=dataset, run=run, options=REFIT)
    assert len(fits) == fits_left
    assert resumed.beginning == f"goes on with run {run} after {kept}"
    assert_same(load_file(run / CHECKPOINT), load_file(whole / CHECKPOINT))
    assert resumed.holdout_scores == record.holdout_scores
    assert resumed.refit_scores == record.refit_scores
    assert resumed.training == record.training


def test_a_detector_without_epochs_repeats_its_second_fit_alone(refitted, dataset, tmp_path, monkeypatch):
    whole, _ = refitted("padim")
    fit, fits = Padim.fit, []

    def pulled(*given, **named):
        fits.append(1)
        if len(fits) == 2:
            raise PulledPlugError
        return fit(*given, **named)

    run = tmp_path / "run"
    monkeypatch.setattr(Padim, "fit", pulled)
    with pytest.raises(PulledPlugError):
        train("padim", CONFIGS["padim"], dataset=dataset, run=run, options=REFIT)
    train("padim", CONFIGS["padim"], dataset=dataset, run=run, options=REFIT)
    assert len(fits) == 3
    assert_same(load_file(run / CHECKPOINT), load_file(whole / CHECKPOINT))


def test_a_first_fit_that_cannot_be_read_is_named(dataset, tmp_path):
    run = tmp_path / "run"
    train("padim", CONFIGS["padim"], dataset=dataset, run=run, options=REFIT)
    (run / RECORD).unlink()
    (run / FIRST_FIT).write_text(json.dumps({"fit": {}, "holdout_scores": ["high"], "epochs": {}}))
    with pytest.raises(BadInputError, match=r"first_fit\.json cannot be gone on from: holdout_scores\.0 is 'high'"):
        train("padim", CONFIGS["padim"], dataset=dataset, run=run, options=REFIT)


def test_a_run_is_refitted_from_its_beginning_or_not_at_all(refitted, dataset):
    run, record = refitted("padim")
    with pytest.raises(BadInputError, match="a finished run begun with another refit"):
        train("padim", CONFIGS["padim"], dataset=dataset, run=run)
    again = train("padim", CONFIGS["padim"], dataset=dataset, run=run, options=REFIT)
    assert again.training == record.training


def test_scores_of_either_fit_that_are_not_finite_end_it(dataset, tmp_path, monkeypatch):
    forward = Padim.forward
    for number, (nan_at, is_first_kept) in enumerate(((0, False), (1, True))):
        fits, fit = [], Padim.fit

        def counted(*given, fits=fits, fit=fit, **named):
            fits.append(1)
            return fit(*given, **named)

        def broken(detector, images, fits=fits, nan_at=nan_at):
            score, anomaly_map = forward(detector, images)
            return (score * torch.nan if len(fits) > nan_at else score), anomaly_map

        run = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(Padim, "fit", counted)
            patch.setattr(Padim, "forward", broken)
            with pytest.raises(LineproofError, match="a score that is not finite"):
                train("padim", CONFIGS["padim"], dataset=dataset, run=run, options=REFIT)
        assert (run / FIRST_FIT).exists() == is_first_kept
        assert not (run / RECORD).exists()


def test_the_second_fit_has_all_images_and_no_time_limit(tmp_path):
    context = FitContext(time_limit_s=5.0, run=tmp_path, seed=3)
    job = Job(config=CONFIGS["fastflow"], fitted=["a", "b"], held_out=["c"], context=context)
    second = refit_job(job, FirstFit(fit={}, holdout_scores=(1.0,), epochs={"training": 3}))
    assert (second.config, second.fitted, second.held_out) == (job.config, ["a", "b", "c"], ["c"])
    assert (second.context.time_limit_s, second.context.seed, second.context.run) == (0.0, 3, tmp_path / "refit")
    assert second.context.epochs == {"training": 3}
    assert (tmp_path / "refit").is_dir()


class Numbers(BatchSource):
    """Batches that are their own indices, of four items."""

    def __len__(self):
        return 4

    def __getitem__(self, draw):
        return draw.indices


class TwoTrainings:
    """A fit of two trainings, a teacher's that keeps its last epoch and a student's that keeps its best, then PaDiM's.

    Args:
        pulled_in_fit: number of the fit, from 1, in which the student's second epoch is not reached; 0 for none.
    """

    def __init__(self, *, pulled_in_fit=0):
        self.pulled_in_fit = pulled_in_fit
        self.num_fits = 0
        self.steps = []
        self.weights = {}
        self._padim = Padim.fit

    def fit(self, detector, images, holdout, *, context):
        self.num_fits += 1
        reports = {
            "teacher": self._train("teacher", Schedule(epochs=3, batch_size=2, patience=0, keeps="last"), context),
            "student": self._train("student", Schedule(epochs=5, batch_size=2, patience=2, keeps="best"), context),
        }
        return {**reports, **self._padim(detector, images, holdout, context=context)}

    def _train(self, name, schedule, context):
        # The student's second epoch is its best one, and two epochs later patience ends it; the teacher's is the first.
        best = {"teacher": 1, "student": 2}[name]
        module = torch.nn.Linear(1, 1)
        module.register_buffer("num_steps", torch.tensor(0))

        def loss(indices):
            fit = "second" if context.run.name == "refit" else "first"
            if (name, self.num_fits) == ("student", self.pulled_in_fit) and self.steps[-2:] == [(fit, name)] * 2:
                raise PulledPlugError
            self.steps.append((fit, name))
            module.num_steps += 1
            return (module(indices[:, None].float()) - 1.0).square().mean()

        optimisation = Optimisation(optimiser=torch.optim.SGD(module.parameters(), 0.01))
        task = LossTask(
            module, optimisation, source=Numbers(), loss=loss,
            holdout_loss=lambda: abs(float(module.num_steps) / 2 - best), name=name,
        )  # fmt: skip
        report = Trainer(task, schedule=schedule, context=context).run()
        self.weights[name] = module.weight.item()
        return report


def steps_of(**numbers):
    """Two steps an epoch: ``first_teacher=3`` is ``("first", "teacher")`` six times."""
    return [tuple(key.split("_")) for key, epochs in numbers.items() for _ in range(2 * epochs)]


def test_each_of_several_trainings_runs_as_many_epochs_as_it_kept(dataset, tmp_path, monkeypatch):
    """Which of a configuration's fields are their lengths is nobody's to guess: here it has none for either."""
    two, told = TwoTrainings(), []
    monkeypatch.setattr(Padim, "fit", lambda *given, **named: two.fit(*given, **named))
    run = tmp_path / "run"
    record = train(
        "padim", CONFIGS["padim"], dataset=dataset, run=run, options=REFIT,
        progress=lambda stage, *_: told.append(stage),
    )  # fmt: skip
    assert two.steps == steps_of(first_teacher=3, first_student=4, second_teacher=3, second_student=2)
    kept = {"teacher": 3, "student": 2}
    assert record.training.refit.epochs == read_first_fit(run).epochs == kept
    assert record.first_fit["student"]["stopped"] == "patience"
    for name, count in kept.items():
        report = record.fit[name]
        assert (report["epochs"], report["stopped"], report["keeps"]) == (count, "epochs", "last")
        assert ("best_former_holdout_loss" in report, "best_holdout_loss" in report) == (True, False)
    assert "fits again on all 10 good images, 3 epochs of its teacher, 2 epochs of its student" in told
    assert read_record(run).training == record.training


@pytest.mark.parametrize(
    ("pulled_in_fit", "kept", "left"),
    [
        (1, "epoch 1 of 5 of its student", {"first_student": 3, "second_teacher": 3, "second_student": 2}),
        (2, "epoch 1 of 2 of its student of its refit", {"second_student": 1}),
    ],
)
def test_an_interrupted_fit_of_several_trainings_goes_on_in_the_one_it_was_in(
    dataset, tmp_path, monkeypatch, pulled_in_fit, kept, left
):
    whole, broken, resumed = TwoTrainings(), TwoTrainings(pulled_in_fit=pulled_in_fit), TwoTrainings()

    def train_with(two, run):
        monkeypatch.setattr(Padim, "fit", lambda *given, **named: two.fit(*given, **named))
        return train("padim", CONFIGS["padim"], dataset=dataset, run=run, options=REFIT)

    record = train_with(whole, tmp_path / "whole")
    run = tmp_path / "run"
    with pytest.raises(PulledPlugError):
        train_with(broken, run)
    assert epochs_kept_words(run) == kept
    again = train_with(resumed, run)
    assert resumed.steps == steps_of(**left)
    assert (again.training, again.refit_scores) == (record.training, record.refit_scores)
    assert resumed.weights == whole.weights
