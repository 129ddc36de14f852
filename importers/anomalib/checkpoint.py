"""Reader of anomalib's checkpoints: plain data and tensors only, without anomalib and without running what they hold.

A checkpoint is a pickle. It is read by PyTorch's restricted unpickler; classes of other packages that older releases
put into it become inert records of their fields, whose code is never imported nor run.

Formats, by what was seen: 2.7 keeps the transform and the switches of the post-processing as plain data beside the
tensors (``anomalib_pre_processor_config``). 2.0 to 2.6 keep pickled modules among the hyper-parameters where they were
given, and nothing where the model was made with its defaults. 1.x keeps thresholds and extremes as tensors of metrics,
names of their classes beside them, and the transform as a pickled module.

Tested with checkpoints that the release itself trained, against its own ``Engine.predict``: PaDiM, PatchCore and
FastFlow of 1.2.0, 2.2.0 and 2.7.0; PaDiM and PatchCore of 2.0.0 and 2.1.0. A transform that was given to the model was
tested with PaDiM of 2.2.0. 2.3 to 2.6 were not run: the names of their tensors and their default transforms
were read in the source.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ...bundle.atomic import file_sha256
from ...core.errors import BadInputError
from ...core.table import first_few
from ...core.words import counted

#: Lightning's dictionary of arguments, in any of its packages.
_DICTIONARY = ".AttributeDict"
#: Tensors beside the model's that are known: of 2.x by name, of 1.x by the metric that they are of.
_BESIDE = (
    "_is_fitted", "post_processor._image_threshold", "post_processor._pixel_threshold", "post_processor.image_min",
    "post_processor.image_max", "post_processor.pixel_min", "post_processor.pixel_max",
)  # fmt: skip
_FORMER = ("image_threshold.", "pixel_threshold.", "normalization_metrics.", "image_metrics.", "pixel_metrics.")
_ADVICE = "Give the .ckpt file that anomalib's Engine wrote (weights/lightning/model.ckpt)."


class Inert:
    """Stands for an object of a class that is not imported: its fields, and nothing that runs.

    Attributes:
        name: full name of the class.
        arguments: what it was made with.
        state: what was set in it afterwards.
    """

    name = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> Inert:
        """Keep the arguments; ``__init__`` is not called for an object that was pickled by its fields."""
        record = super().__new__(cls)
        record.arguments, record.state = arguments, {}
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: the file.
        sha256: hash of its bytes, hexadecimal.
        tensors: the tensors of the state dict, by name.
        classes: the names of classes of metrics that releases before 2.0 have among its tensors, by key.
        entries: everything else, as plain data and ``Inert`` records.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    classes: Mapping[str, str]
    entries: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The arguments that the model was made with (``hyper_parameters``)."""
        stored = self.entries.get("hyper_parameters")
        return stored if isinstance(stored, Mapping) else {}

    def model_tensors(self) -> dict[str, Tensor]:
        """The tensors of the model alone, without the leading ``model.``."""
        return {key.removeprefix("model."): item for key, item in self.tensors.items() if key.startswith("model.")}

    def number(self, *names: str) -> float | None:
        """The value of the first of these scalar tensors that is there; None where none is, or where it is not set.

        Raises:
            BadInputError: it holds several values.
        """
        for name in names:
            tensor = self.tensors.get(name)
            if tensor is None:
                continue
            if tensor.numel() != 1:
                raise BadInputError(
                    f"{self.path}: {name} holds {tensor.numel()} values; expected one. The file was changed."
                )
            # NaN is how anomalib says that a number was not set.
            return None if bool(torch.isnan(tensor)) else float(tensor)
        return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: a Lightning checkpoint of anomalib.

    Raises:
        BadInputError: it cannot be read, or is no Lightning checkpoint.
    """
    if not path.is_file():
        raise BadInputError(f"{path} is no file. {_ADVICE}")
    if path.suffix == ".onnx":
        raise BadInputError(f"{path} is an ONNX file. {_ADVICE} A file alone: lineproof import onnx.")
    _check_sums(path)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        stubs: list[Any] = [(_stub(name), name) for name in names]
        with torch.serialization.safe_globals(stubs):
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, AttributeError, TypeError) as error:
        raise BadInputError(f"{path} cannot be read as a checkpoint ({_reason(error)}). {_ADVICE}") from None
    state = raw.get("state_dict") if isinstance(raw, Mapping) else None
    if not isinstance(state, Mapping) or not all(_is_known(*item) for item in state.items()):
        seen = (
            f"its keys are {first_few(list(raw))}" if isinstance(raw, Mapping) else f"it holds a {type(raw).__name__}"
        )
        raise BadInputError(f"{path} is no checkpoint of anomalib: {seen}; expected state_dict with tensors. {_ADVICE}")
    unknown = [key for key in state if not _is_beside(str(key))]
    if unknown:
        raise BadInputError(
            f"{path} holds {counted(len(unknown), 'tensor')} that no known release of anomalib has: "
            f"{first_few(unknown)}. Nothing is dropped silently: import a checkpoint of an unchanged model."
        )
    entries = {key: value for key, value in raw.items() if key != "state_dict"}
    return Checkpoint(
        path=path,
        sha256=file_sha256(path),
        tensors={key: item for key, item in state.items() if isinstance(item, Tensor)},
        classes={key: item for key, item in state.items() if isinstance(item, str)},
        entries=entries,
    )


def _check_sums(path: Path) -> None:
    """Raise BadInputError where a part of the file does not have the checksum that was written with it."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{path} cannot be read as a checkpoint ({error}). {_ADVICE}") from None
    if broken:
        raise BadInputError(f"{path} is damaged: {broken} in it does not have its checksum. Copy it again.")


def _is_beside(key: str) -> bool:
    """Whether a key of the state dict is the model's, or one that is known beside it."""
    return key.startswith(("model.", *_FORMER)) or key in _BESIDE or key.endswith("_class")


def _is_known(key: object, item: object) -> bool:
    """Whether a state dict may hold this: a tensor, or the name of a class where releases before 2.0 have one."""
    return isinstance(item, Tensor) or (isinstance(item, str) and isinstance(key, str) and key.endswith("_class"))


def _reason(error: Exception) -> str:
    """The line of an error that says what was seen; PyTorch's own begins with advice to switch its safety off."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    marked = [number for number, line in enumerate(lines[:-1]) if line.endswith("WeightsUnpickler error:")]
    if not marked and any("weights_only" in line for line in lines):
        return "it holds what only a program could read, and programs in it are never run"
    return (lines[marked[0] + 1 if marked else 0][:300]) if lines else type(error).__name__


def _stub(name: str) -> type[Any]:
    # PyTorch fills a few kinds of dictionaries and no others.
    if name.endswith(_DICTIONARY):
        return OrderedDict
    return type(name.rpartition(".")[2], (Inert,), {"name": name})
