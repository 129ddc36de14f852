"""The one training loop: seeded order, early stopping on held-out good images, resume after a kill."""

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...bundle.atomic import write_atomic
from ...bundle.runs.folder import STATE
from ...core.errors import BadInputError, LineproofError, UsageError
from ..base import FitContext
from ..nn.finite import describe_not_finite


@dataclass(frozen=True)
class Schedule:
    """How long and with which steps to train.

    Attributes:
        epochs: largest number of passes over the images.
        batch_size: images per step.
        patience: epochs without a lower held-out loss before training stops; 0 never stops early.
    """

    epochs: int
    batch_size: int
    patience: int


@dataclass
class _Progress:
    epoch: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    seconds: float = 0.0


class Trainer:
    """Trains the parameters of ``module`` that require a gradient.

    The order of epoch e depends on (seed, e) alone, so a resumed run takes the very steps an unbroken one takes.

    Args:
        module: what is trained; on ``context.device`` already.
        optimiser: over its parameters.
        schedule: length.
        context: seed, progress, state folder.

    Raises:
        UsageError: a schedule without epochs or with empty batches.
    """

    def __init__(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, *, schedule: Schedule, context: FitContext
    ) -> None:
        if schedule.epochs < 1 or schedule.batch_size < 1:
            raise UsageError(
                f"Training has {schedule.epochs} epochs of batches of {schedule.batch_size}; expected at least 1."
            )
        self._module = module
        self._optimiser = optimiser
        self._schedule = schedule
        self._context = context
        self._trained = {name: item for name, item in module.named_parameters() if item.requires_grad}
        self._best = {name: item.detach().clone() for name, item in self._trained.items()}
        self._at = _Progress()

    def run(
        self, num_images: int, *, loss: Callable[[Tensor], Tensor], holdout_loss: Callable[[], float]
    ) -> dict[str, Any]:
        """Train, and leave the module with the parameters of its best epoch.

        Args:
            num_images: images to draw from.
            loss: indices int64 (B,) → scalar loss of those images.
            holdout_loss: mean loss of the held-out good images.

        Returns:
            epochs, best_epoch, best_holdout_loss, seconds, stopped ("epochs", "patience" or "time limit").

        Raises:
            LineproofError: a loss is not finite.
            BadInputError: the state to go on from holds weights that are not finite.
        """
        self._resume()
        # Asked before each epoch, not after: a run that was killed at its very end must not train on when resumed.
        while not (reason := self._reason_to_stop()):
            began = time.perf_counter()
            self._epoch(num_images, loss)
            self._judge(holdout_loss())
            self._at.epoch += 1
            self._at.seconds += time.perf_counter() - began
            self._save()
        with torch.no_grad():
            for name, item in self._trained.items():
                item.copy_(self._best[name])
        at = self._at
        return {
            "epochs": at.epoch,
            "best_epoch": at.best_epoch,
            "best_holdout_loss": at.best_loss,
            "seconds": round(at.seconds, 1),
            "stopped": reason,
        }

    def _reason_to_stop(self) -> str:
        if self._schedule.patience and self._at.epoch - 1 - self._at.best_epoch >= self._schedule.patience:
            return "patience"
        if 0 < self._context.time_limit_s <= self._at.seconds:
            return "time limit"
        return "epochs" if self._at.epoch >= self._schedule.epochs else ""

    def _epoch(self, num_images: int, loss: Callable[[Tensor], Tensor]) -> None:
        generator = torch.Generator().manual_seed((self._context.seed << 20) + self._at.epoch)
        order = torch.randperm(num_images, generator=generator)
        steps = order.split(self._schedule.batch_size)
        self._module.train()
        for step, indices in enumerate(steps):
            self._optimiser.zero_grad(set_to_none=True)
            value = loss(indices)
            self._require_finite("training", value.item())
            value.backward()
            self._optimiser.step()
            done = self._at.epoch * len(steps) + step + 1
            self._context.progress("training", done, self._schedule.epochs * len(steps))
        self._module.eval()

    def _require_finite(self, which: str, value: float) -> None:
        if not math.isfinite(value):
            raise LineproofError(
                f"The {which} loss became {value} in epoch {self._at.epoch + 1}. "
                "Lower the learning rate (--set learning_rate=...) and train again, into a new --out."
            )

    def _judge(self, value: float) -> None:
        self._require_finite("held-out", value)
        if value < self._at.best_loss:
            self._at.best_loss, self._at.best_epoch = value, self._at.epoch
            self._best = {name: item.detach().clone() for name, item in self._trained.items()}

    def _save(self) -> None:
        if self._context.run is None:
            return
        tensors = {f"current/{name}": item.detach().cpu() for name, item in self._trained.items()}
        tensors |= {f"best/{name}": item.cpu() for name, item in self._best.items()}
        state = self._optimiser.state_dict()["state"]
        for index, slots in state.items():
            tensors |= {f"optimiser/{index}/{slot}": torch.as_tensor(value).cpu() for slot, value in slots.items()}
        temporary = self._context.run / f".{STATE}.tmp"
        metadata = {"progress": json.dumps(asdict(self._at)), "epochs": str(self._schedule.epochs)}
        save_file({name: item.contiguous().clone() for name, item in tensors.items()}, temporary, metadata)
        temporary.replace(self._context.run / STATE)

    def _resume(self) -> None:
        path = self._context.run / STATE if self._context.run else None
        if path is None or not path.exists():
            return
        tensors = load_file(path)
        # Adam's own state may overflow without harm; what is computed with may not.
        found = describe_not_finite({name: item for name, item in tensors.items() if not name.startswith("optimiser/")})
        if found:
            raise BadInputError(f"{path} cannot be gone on from: {found}. Train again, into a new --out.")
        self._at = _Progress(**json.loads(_metadata(path)["progress"]))
        with torch.no_grad():
            for name, item in self._trained.items():
                item.copy_(tensors[f"current/{name}"])
                self._best[name] = tensors[f"best/{name}"].to(item.device)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "optimiser":
                index, _, slot = rest.partition("/")
                slots.setdefault(int(index), {})[slot] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": slots, "param_groups": groups})


def steps_taken(optimiser: torch.optim.Optimizer, parameters: Iterable[Tensor] | None = None) -> int:
    """Steps that Adam has taken, as its own state counts them, so that a resumed training counts on.

    Args:
        optimiser: of Adam's family.
        parameters: count the steps of these only.
    """
    state = optimiser.state
    chosen = state if parameters is None else parameters
    return max((int(state[item]["step"]) for item in chosen if item in state), default=0)


def follow_cosine(optimiser: torch.optim.Optimizer, *, num_steps: int, taken: Callable[[], int]) -> None:
    """Let the learning rate warm up from a tenth over 8 % of the steps, then fall by a cosine to a thousandth.

    Args:
        optimiser: with one group, at its highest rate.
        num_steps: of the whole training.
        taken: counts the steps so far; see ``steps_taken``.
    """
    peak, warm_steps = optimiser.param_groups[0]["lr"], 0.08 * num_steps

    def adjust(adam: torch.optim.Optimizer, args: Any, settings: Any) -> None:  # noqa: ARG001
        done = taken()
        rate = 1e-3 + (1.0 - 1e-3) * 0.5 * (1.0 + math.cos(math.pi * done / num_steps))
        adam.param_groups[0]["lr"] = peak * rate * min(1.0, 0.1 + 0.9 * done / warm_steps)

    optimiser.register_step_pre_hook(adjust)


def _metadata(path: Any) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def write_json(path: Any, value: dict[str, Any]) -> None:
    """Write JSON atomically, keys sorted."""
    write_atomic(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())
