"""The trainer's state on disk: safetensors for tensors, JSON in the header for everything else, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...bundle.atomic import new_file
from ...bundle.runs.folder import STATE, STATES
from ...core.errors import BadInputError, LineproofError
from ..nn.finite import describe_not_finite
from .task import TRAINING

#: Format 1 held trained parameters and the slots of one optimiser, and named no format; format 2 whole epochs only.
FORMAT = 3
#: What is computed with must be finite; an optimiser's own state may overflow without harm.
_COMPUTED_WITH = ("current/", "kept/", "ema/")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainerState:
    """Everything that a resumed training continues from.

    Attributes:
        progress: numbers of epochs and of steps of the next one that are done, the best epoch and its loss, seconds;
            plain JSON values.
        epochs: largest number of epochs.
        current: trained parameters and buffers after the last step, by name.
        kept: trained parameters and buffers of the epoch that is kept so far, by name; empty where there is none yet,
            or where they are those of ``current``.
        ema: state dict of the averaged module; empty where nothing is averaged.
        others: state dicts of optimisers, schedulers and scaler, and the states of generators.
    """

    progress: dict[str, Any]
    epochs: int
    current: dict[str, Tensor]
    kept: dict[str, Tensor]
    ema: dict[str, Tensor]
    others: dict[str, Any]


def state_path(run: Path, name: str) -> Path:
    """Return the path of the state of the training with this name in a run folder."""
    stem, _, suffix = STATE.partition(".")
    return run / (STATE if name == TRAINING else f"{stem}-{name}.{suffix}")


def write_state(path: Path, state: TrainerState) -> None:
    """Write a state atomically.

    Raises:
        LineproofError: an optimiser or a scheduler holds something else than tensors, numbers, strings, lists and
            dictionaries.
    """
    tensors: dict[str, Tensor] = {}
    groups = (("current", state.current), ("kept", state.kept), ("ema", state.ema))
    for kind, group in groups:
        tensors |= {f"{kind}/{name}": item for name, item in group.items()}
    others = _split(state.others, "others", tensors)
    metadata = {
        "format": str(FORMAT),
        "progress": json.dumps(state.progress),
        "epochs": str(state.epochs),
        "others": json.dumps(others),
    }
    with new_file(path) as file:
        save_file(unshared(tensors), file, metadata)


def read_state(path: Path) -> TrainerState:
    """Read a state; all tensors on the CPU.

    Raises:
        BadInputError: the file cannot be read, has another format, or holds weights that are not finite.
    """
    metadata = check_state(path)
    tensors = load_file(path)
    if words := describe_not_finite({name: item for name, item in tensors.items() if name.startswith(_COMPUTED_WITH)}):
        raise BadInputError(f"{path} cannot be gone on from: {words}. Train again, into a new --out.")
    groups: dict[str, dict[str, Tensor]] = {"current": {}, "kept": {}, "ema": {}, "others": {}}
    for name, item in tensors.items():
        kind, _, rest = name.partition("/")
        groups[kind][rest] = item
    return TrainerState(
        progress=json.loads(metadata["progress"]),
        epochs=int(metadata["epochs"]),
        current=groups["current"],
        kept=groups["kept"],
        ema=groups["ema"],
        others=_joined(json.loads(metadata["others"]), tensors),
    )


def check_state(path: Path) -> dict[str, str]:
    """Check the format of a state and return its metadata.

    Raises:
        BadInputError: the file cannot be read, or has another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise BadInputError(f"{path} cannot be read ({error}). Train again, into a new --out.") from None
    seen = metadata.get("format", "1")
    if seen != str(FORMAT):
        raise BadInputError(
            f"{path} holds a training in format {seen}, as another release of lineproof wrote it; this one goes on "
            f"from format {FORMAT} only. Finish it with the release that began it, or train again, into a new --out."
        )
    return metadata


def check_states(run: Path) -> None:
    """Check the format of every state in a run folder.

    Raises:
        BadInputError: a state cannot be read, or has another format.
    """
    for path in sorted(run.glob(STATES)):
        check_state(path)


def present_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's trained parameters and persistent buffers by name: they change with the module."""
    frozen = {name for name, item in module.named_parameters(remove_duplicate=False) if not item.requires_grad}
    return {name: item.detach() for name, item in module.state_dict().items() if name not in frozen}


def kept_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of a module's trained parameters and persistent buffers by name, on their devices."""
    return {name: item.clone() for name, item in present_tensors(module).items()}


def restore_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of ``present_tensors`` or ``kept_tensors`` into a module.

    Raises:
        RuntimeError: names or shapes are those of another module.
    """
    state = module.state_dict()
    expected = present_tensors(module).keys()
    if expected != tensors.keys():
        raise RuntimeError(f"it holds other tensors: {', '.join(sorted(expected ^ tensors.keys())[:3])}")
    module.load_state_dict({**state, **tensors}, strict=True)


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU, of which no two share memory, as a file needs them; copied where needed."""
    ready: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, item in tensors.items():
        tensor = item.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        ready[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return ready


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return a nested state as JSON values; its tensors move to ``tensors`` under their path."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        # Pairs, since an optimiser numbers its parameters and JSON's keys are words.
        return {"items": [[key, _split(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}/{number}", tensors) for number, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise LineproofError(
        f"{path} is a {type(value).__name__}, which a trainer's state cannot hold; expected tensors, numbers, words, "
        "lists or dictionaries. Use an optimiser and a scheduler whose state_dict holds nothing else."
    )


def _joined(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``_split``; tuples come back as lists."""
    if isinstance(value, list):
        return [_joined(item, tensors) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _joined(item, tensors) for key, item in value["items"]}
    return value
