"""The training loop: seeded order, early stopping on held-out good images, resume after a kill."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Generic, final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from ...core.errors import BadInputError, LineproofError, UsageError
from ...core.interrupt import interruptible
from ..base import FitContext
from .averages import averaged_model
from .loading import EpochOrder, make_loader
from .pace import Pace
from .schedules import Schedule
from .state import (
    TrainerState,
    kept_tensors,
    present_tensors,
    read_state,
    restore_tensors,
    state_path,
    write_state,
)
from .task import BatchT, Optimisation, TrainingTask
from .watch import LossWatch

_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(kw_only=True)
class _Progress:
    """Position of a training: whole epochs, steps of the next one, the best epoch so far, and the time that it took."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    seconds: float = 0.0


@final
class Trainer(Generic[BatchT]):
    """Runs a training task, and resumes an interrupted one.

    The order of epoch e depends on (seed, e) alone, and all that a step depends on is in the state after each step:
    trained parameters, buffers, optimisers, schedulers, averages, scaler and torch's generators. So a resumed run takes
    the same steps as an unbroken one. The state is saved every ``context.save_every_s``, at the end, and after the
    step during which Ctrl-C was pressed.

    On CUDA no step waits for the device: losses are read about once a second, at the end of the epoch, and before
    anything is saved. So one that is not finite is reported with its epoch and step, but up to a second late.

    Args:
        task: task with the module, its batches, losses and optimisers.
        schedule: length, batches, averages and precision of the training; ``context.epochs`` may name another length.
        context: seed, device, progress, run folder and workers.

    Raises:
        UsageError: the device cannot train in this precision.
    """

    def __init__(self, task: TrainingTask[BatchT], *, schedule: Schedule, context: FitContext) -> None:
        device = context.device.type
        if schedule.precision != "fp32" and device != "cuda":
            raise UsageError(
                f"Training in {schedule.precision} was asked for on {device}; expected CUDA, which alone trains in "
                "mixed precision. Train in fp32, or on cuda."
            )
        self._task = task
        num_epochs = context.epochs.get(task.name)
        self._schedule = replace(schedule, epochs=num_epochs, patience=0, keeps="last") if num_epochs else schedule
        self._context = context
        self._optimisations = dict(task.optimisers())
        self._scaler = torch.amp.GradScaler("cuda", enabled=schedule.precision == "fp16")
        self._ema = averaged_model(task.module, schedule.ema_decay) if schedule.ema_decay else None
        self._order = EpochOrder(len(task.source), schedule.batch_size, seed=context.seed)
        self._kept: dict[str, Tensor] = {}
        self._watch = LossWatch(context.device)
        self._at = _Progress()
        self._clock = time.perf_counter()
        self._saved_at = self._clock
        self._saved = (0, 0)

    def run(self) -> dict[str, Any]:
        """Train, and leave the module in evaluation mode with the weights and buffers of the epoch that is kept.

        Returns:
            epochs, best_epoch, best_holdout_loss, seconds and stopped ("epochs", "patience" or "time limit"); keeps,
            ema_decay and precision too where they differ from their defaults.

        Raises:
            LineproofError: a loss is not finite.
            KeyboardInterrupt: Ctrl-C was pressed; the state was saved.
            BadInputError: the saved state does not fit the module, or holds weights that are not finite.
        """
        self._resume()
        loader = make_loader(
            self._task.source,
            self._order,
            num_workers=self._context.num_workers,
            seed=self._context.seed,
            is_pinned=self._context.device.type == "cuda",
        )
        self._clock = self._saved_at = time.perf_counter()
        with interruptible() as should_stop:
            # Asked before each epoch, not after: a run that was killed at its very end must not train on when resumed.
            while not (reason := self._reason_to_stop()):
                self._epoch(loader, should_stop)
                self._judge()
                self._at.epoch, self._at.step = self._at.epoch + 1, 0
                self._rest(should_stop)
            self._save()
        self._task.module.eval()
        if self._kept:
            restore_tensors(self._task.module, self._kept)
        self._context.trained(
            self._task.name, self._at.epoch if self._schedule.keeps == "last" else self._at.best_epoch + 1
        )
        return self._report(reason)

    def _report(self, reason: str) -> dict[str, Any]:
        at = self._at
        report: dict[str, Any] = {
            "epochs": at.epoch,
            "best_epoch": at.best_epoch,
            "best_holdout_loss": at.best_loss,
            "seconds": round(at.seconds, 1),
            "stopped": reason,
        }
        defaults = {item.name: item.default for item in fields(Schedule) if item.default is not MISSING}
        chosen = {name: getattr(self._schedule, name) for name in defaults}
        return report | {name: value for name, value in chosen.items() if value != defaults[name]}

    def _reason_to_stop(self) -> str:
        if self._at.step:
            # A resumed training ends the epoch that it was saved in, as an unbroken one does.
            return ""
        if self._schedule.patience and self._at.epoch - 1 - self._at.best_epoch >= self._schedule.patience:
            return "patience"
        if 0 < self._context.time_limit_s <= self._at.seconds:
            return "time limit"
        return "epochs" if self._at.epoch >= self._schedule.epochs else ""

    def _rest(self, should_stop: Callable[[], bool]) -> None:
        """Between two steps: take the time, and save the state where that is due."""
        now = time.perf_counter()
        self._at.seconds += now - self._clock
        self._clock = now
        is_stopped = should_stop()
        if is_stopped or 0 < self._context.save_every_s <= now - self._saved_at:
            self._save()
        if is_stopped:
            raise KeyboardInterrupt

    def _epoch(self, loader: DataLoader[BatchT], should_stop: Callable[[], bool]) -> None:
        self._order.epoch, self._order.num_done = self._at.epoch, self._at.step
        self._task.module.train()
        for step, batch in enumerate(loader, self._at.step + 1):
            for name, loss in self._losses(batch):
                self._watch.add(step, name, loss)
                if self._watch.is_due():
                    self._check_losses()
                self._descend(self._optimisations[name], loss)
            if self._ema:
                self._ema.update_parameters(self._task.module)
            self._at.step = step
            self._rest(should_stop)
            pace = Pace(
                epoch=self._at.epoch + 1,
                epochs=self._schedule.epochs,
                step=step,
                steps=len(self._order),
                seconds=self._at.seconds,
                limit_s=self._context.time_limit_s,
            )
            self._context.progress(self._task.name, pace.done, pace.total, pace.words(self._watch.latest))
        self._check_losses()
        self._task.module.eval()

    def _check_losses(self) -> None:
        """Read the losses of this epoch that were not read yet, and refuse one that is not finite."""
        for step, name, value in self._watch.read():
            self._require_finite(name, value, step=step)

    def _losses(self, batch: BatchT) -> Iterator[tuple[str, Tensor]]:
        """Yield the losses of a step, each computed in the schedule's precision when it is requested."""
        losses = self._task.step(batch)
        while True:
            with self._autocast():
                item = next(losses, None)
            if item is None:
                return
            yield item

    def _descend(self, optimisation: Optimisation, loss: Tensor) -> None:
        optimiser = optimisation.optimiser
        optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(optimisation.factor * loss).backward()
        if math.isfinite(optimisation.largest_norm):
            self._scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(optimisation.parameters(), optimisation.largest_norm)
        self._scaler.step(optimiser)
        self._scaler.update()
        if optimisation.scheduler and optimisation.scheduler_unit == "step":
            optimisation.scheduler.step()

    def _judge(self) -> None:
        with self._averaged(), torch.no_grad(), self._autocast():
            value = self._task.validate()
            self._require_finite("held-out", value)
            is_best = value < self._at.best_loss
            if is_best:
                self._at.best_loss, self._at.best_epoch = value, self._at.epoch
            # The weights of the last epoch are the module's own, unless they are averages.
            if self._ema if self._schedule.keeps == "last" else is_best:
                self._keep()
        for item in self._optimisations.values():
            if item.scheduler_unit == "epoch" and isinstance(item.scheduler, ReduceLROnPlateau):
                item.scheduler.step(value)
            elif item.scheduler_unit == "epoch" and item.scheduler:
                item.scheduler.step()

    def _keep(self) -> None:
        """Keep the weights that the module holds, which later steps change; in the memory of those kept before."""
        for name, item in present_tensors(self._task.module).items():
            if name in self._kept:
                self._kept[name].copy_(item)
            else:
                self._kept[name] = item.clone()

    def _require_finite(self, which: str, value: float, *, step: int = 0) -> None:
        if not math.isfinite(value):
            where = f"epoch {self._at.epoch + 1}{f', step {step}' if step else ''}"
            raise LineproofError(
                f"The {which} loss became {value} in {where}. "
                "Lower the learning rate (--set learning_rate=...) and train again, into a new --out."
            )

    def _autocast(self) -> torch.autocast:
        precision = self._schedule.precision
        return torch.autocast(self._context.device.type, _AUTOCAST[precision], enabled=precision != "fp32")

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the averaged weights, where there are any, into the module, and restore the trained ones afterwards."""
        if self._ema is None:
            yield
            return
        trained = kept_tensors(self._task.module)
        restore_tensors(self._task.module, present_tensors(self._ema.module))
        try:
            yield
        finally:
            restore_tensors(self._task.module, trained)

    def _save(self) -> None:
        place = self._at.epoch, self._at.step
        if self._context.run is None or not self._context.save_every_s or self._saved == place:
            return
        self._check_losses()
        device, generators = self._context.device, {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(device)
        others = {
            "optimisers": {name: item.optimiser.state_dict() for name, item in self._optimisations.items()},
            "schedulers": {
                name: item.scheduler.state_dict() for name, item in self._optimisations.items() if item.scheduler
            },
            "scaler": self._scaler.state_dict(),
            "generators": generators,
        }
        state = TrainerState(
            progress=asdict(self._at),
            epochs=self._schedule.epochs,
            current=present_tensors(self._task.module),
            kept={} if self._is_kept_current() else self._kept,
            ema=dict(self._ema.state_dict()) if self._ema else {},
            others=others,
        )
        write_state(state_path(self._context.run, self._task.name), state)
        self._saved, self._saved_at = place, time.perf_counter()

    def _is_kept_current(self) -> bool:
        """Whether the best epoch is the one that has just been judged, whose weights the module still holds."""
        return not self._ema and self._at.step == 0 and self._at.best_epoch == self._at.epoch - 1

    def _resume(self) -> None:
        path = state_path(self._context.run, self._task.name) if self._context.run else None
        if path is None or not path.exists():
            return
        state = read_state(path)
        try:
            self._take(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BadInputError(
                f"{path} does not fit what is trained ({str(error)[:300]}). Train again, into a new --out."
            ) from None

    def _take(self, state: TrainerState) -> None:
        device = self._context.device
        self._at = _Progress(**state.progress)
        restore_tensors(self._task.module, state.current)
        self._kept = {name: item.to(device) for name, item in state.kept.items()}
        if self._schedule.keeps == "best" and self._is_kept_current():
            self._kept = kept_tensors(self._task.module)
        if self._ema:
            self._ema.load_state_dict(state.ema)
        for name, item in self._optimisations.items():
            item.optimiser.load_state_dict(state.others["optimisers"][name])
            if item.scheduler:
                item.scheduler.load_state_dict(state.others["schedulers"][name])
        self._scaler.load_state_dict(state.others["scaler"])
        torch.set_rng_state(state.others["generators"]["cpu"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state.others["generators"]["cuda"], device)
        self._saved = self._at.epoch, self._at.step
