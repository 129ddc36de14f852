"""What the converter of a model is given, and what it gives back; what it leaves untaken is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

from torch import Tensor

from ...core.errors import BadInputError
from ...core.size import Size
from ...core.table import first_few
from .checkpoint import Inert

T = TypeVar("T", int, float, str, bool)
#: Where the tensors of a detector's backbone lie in its state dict.
BACKBONE = "backbone.network"


@final
class Tensors:
    """The tensors of a model; each must be taken or left by name.

    Args:
        state: tensors by their names in the checkpoint, without the leading ``model.``.
        path: the checkpoint, for messages.
    """

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        self._state = dict(state)
        self._path = path

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name, or one below it."""
        return any(key == name or key.startswith(f"{name}.") for key in self._state)

    def take(self, name: str) -> Tensor:
        """Return one tensor, which counts as taken.

        Raises:
            BadInputError: there is none of this name.
        """
        if name not in self._state:
            raise BadInputError(
                f"{self._path} holds no tensor model.{name}, which such a model of anomalib has. The file is of a "
                "release that is not known here, or was changed."
            )
        return self._state.pop(name)

    def take_under(self, prefix: str) -> dict[str, Tensor]:
        """Return all tensors below ``prefix.``, by their names without it; they count as taken.

        Raises:
            BadInputError: there is none.
        """
        below = {key: self._state[key] for key in self._state if key.startswith(f"{prefix}.")}
        if not below:
            raise BadInputError(
                f"{self._path} holds no tensor below model.{prefix}, which such a model of anomalib has. The file is "
                "of a release that is not known here, or was changed."
            )
        for key in below:
            del self._state[key]
        return {key.removeprefix(f"{prefix}."): tensor for key, tensor in below.items()}

    def leave(self, prefix: str) -> None:
        """Say that the tensor of this name, and all below it, carry nothing that decides a score."""
        for key in [key for key in self._state if key == prefix or key.startswith(f"{prefix}.")]:
            del self._state[key]

    def check_all_taken(self) -> None:
        """Raise BadInputError where a tensor was neither taken nor left."""
        if self._state:
            names = first_few([f"model.{key}" for key in self._state])
            raise BadInputError(
                f"{self._path} holds {len(self._state)} tensors that are not known of this model: {names}. Nothing is "
                "dropped silently: import a checkpoint of an unchanged model of anomalib."
            )


@final
class Settings:
    """The arguments that a model was made with (``hyper_parameters``); each must be taken or required.

    Args:
        values: values by name.
        path: the checkpoint, for messages.
    """

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self._values = dict(values)
        self._path = path

    def take(self, name: str, default: T) -> T:
        """Return a setting; where the checkpoint does not hold it, the default.

        Raises:
            BadInputError: it has another type than the default.
        """
        value = _plain(self._values.pop(name, default))
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if not isinstance(value, type(default)) or type(value) is not type(default):
            raise self._refused(name, value, type(default).__name__)
        return value

    def take_count(self, name: str, default: int) -> int:
        """Return a setting that is 1 or more; where the checkpoint does not hold it, the default.

        Raises:
            BadInputError: it is no whole number, or below 1.
        """
        value = self.take(name, default)
        if value < 1:
            raise self._refused(name, value, "1 or more")
        return value

    def take_optional(self, name: str, kind: type[T]) -> T | None:
        """Return a setting of a type, or None where the checkpoint holds None or nothing.

        Raises:
            BadInputError: it has another type.
        """
        value = self._values.pop(name, None)
        if value is not None and type(value) is not kind:
            raise self._refused(name, value, f"{kind.__name__} or None")
        return value

    def require(self, name: str, *expected: object) -> None:
        """Accept only these values of a setting; one that the checkpoint does not hold has the first.

        Raises:
            BadInputError: it has another value.
        """
        value = _plain(self._values.pop(name, expected[0]))
        if value not in [_plain(item) for item in expected]:
            raise self._refused(name, value, " or ".join(map(repr, expected)))

    def leave(self, *names: str) -> None:
        """Say that these settings change no score of a trained model, such as a learning rate."""
        for name in names:
            self._values.pop(name, None)

    def check_all_taken(self) -> None:
        """Raise BadInputError where a setting was not taken."""
        if self._values:
            names = ", ".join(f"{key} = {value!r}" for key, value in self._values.items())
            raise BadInputError(
                f"{self._path} was made with settings that are not known of this model: {names}. Nothing is dropped "
                "silently: they might change its scores."
            )

    def _refused(self, name: str, value: object, expected: str) -> BadInputError:
        return BadInputError(
            f"{self._path} was made with {name} = {value!r}; expected {expected}. Such a model cannot be imported."
        )


def _plain(value: object) -> object:
    """A tuple as a list, and a member of an enumeration, which is pickled as its class and its value, as its value."""
    if isinstance(value, Inert) and len(value.arguments) == 1:
        return value.arguments[0]
    return list(value) if isinstance(value, tuple) else value


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The model of one checkpoint.

    Attributes:
        tensors: its tensors.
        settings: its arguments.
        size: height and width in pixels of the images that it sees, after the checkpoint's transform.
    """

    tensors: Tensors
    settings: Settings
    size: Size


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Converted:
    """The same detector in lineproof's form.

    Attributes:
        model: name of the method in anomalib.
        detector: name of the detector in the table.
        settings: parameters of its configuration that are not the defaults, without sizes and weights.
        state: its state dict, without the matrices of upsampling and smoothing; sizes of buffers may depend on the fit.
        built: tensors, or modules, whose values follow from the settings alone and stay as they are built.
        notes: sentences about the model that people must read beside the result.
        normalisation: mean and standard deviation that the model itself applies to what its transform gives, per RGB
            channel; None for none.
    """

    model: str
    detector: str
    settings: dict[str, Any]
    state: dict[str, Tensor]
    built: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None


def take_backbone(source: Source, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a timm network by the names that they have in our detectors.

    Stages behind the last one that is tapped may be among them; ``build`` leaves them out.

    Args:
        source: the model.
        prefix: where the network's tensors lie.
    """
    return {f"{BACKBONE}.{name}": tensor for name, tensor in source.tensors.take_under(prefix).items()}
