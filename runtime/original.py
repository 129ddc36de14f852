"""The original of an imported bundle: the model's own file, in ONNX Runtime, on frames prepared without the graph.

It shares nothing with the bundle's graph: frames are cut by NumPy, resized by Pillow and normalised by NumPy in
float64, and the outputs are brought to the bundle's form by both. So it can be the reference that the graph is
compared with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import BadInputError
from ..core.imported_model import ImportedModel
from ..core.prediction import Prediction
from ..core.size import Size
from ..core.spec import Frames
from ..core.words import counted
from .native_log import caught_stderr
from .original_tiles import cut, stitch
from .ort_session import failures, import_onnxruntime, open_file

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}

#: Outputs of a model by name, as it gave them.
Outputs = Mapping[str, NDArray[Any]]


def prepare(images: Frames, model: ImportedModel, *, dtype: str) -> NDArray[Any]:
    """Frames, or tiles of them, as an imported model takes them.

    Args:
        images: uint8 (N, H, W, 3) RGB or (N, H, W, 1) mono.
        model: what the model takes.
        dtype: NumPy name of its input's element type.

    Returns:
        (N, C, h, w) or (N, h, w, C) of ``dtype``.
    """
    height, width = model.input_px
    top, left = (round((side - kept) / 2.0) for side, kept in zip(model.resized_px, model.input_px, strict=True))
    values = np.stack([_resize(image, model.resized_px) for image in images])
    values = values[:, top : top + height, left : left + width] * (model.largest_value / 255.0)
    if values.shape[3] < model.num_channels:
        values = np.repeat(values, model.num_channels, axis=3)
    if model.channel_order == "bgr":
        values = values[..., ::-1]
    values = (values - np.asarray(model.mean)) / np.asarray(model.std)
    if model.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values, dtype=dtype)


def _resize(image: NDArray[Any], size: Size) -> NDArray[np.float64]:
    """Bilinear resize of (h, w, C), antialiased where it shrinks, in Pillow's float arithmetic."""
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in np.moveaxis(image, 2, 0)]
    resized = [plane.resize(size[::-1], Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane, np.float64) for plane in resized], axis=2)


def map_of(output: NDArray[Any], *, name: str, num: int) -> NDArray[Any]:
    """The anomaly maps in an output, as (N, h, w).

    Args:
        output: (N, 1, h, w), (N, h, w, 1) or (N, h, w); (h, w) for one image.
        name: name of the output, for the message.
        num: number N of images.

    Raises:
        BadInputError: it has another shape.
    """
    shape = output.shape
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        output = output.squeeze(1 if shape[1] == 1 else 3)
    elif len(shape) == 2 and num == 1:
        output = output[None]
    if output.ndim == 3 and len(output) == num and min(output.shape) > 0:
        return output
    raise BadInputError(
        f"Output {name} has the shape {shape} for {counted(num, 'image')}; expected an anomaly map each: "
        f"({num}, 1, h, w), ({num}, h, w, 1) or ({num}, h, w). Where the model gives several channels, "
        "let it give the anomalous one."
    )


def scores_of(output: NDArray[Any], *, name: str, num: int) -> NDArray[Any]:
    """The scores in an output, as (N,).

    Args:
        output: (N,), or with further axes of one element; a scalar for one image.
        name: name of the output, for the message.
        num: number N of images.

    Raises:
        BadInputError: it has another shape.
    """
    if output.size == num and (num == 1 or output.shape[0] == num):
        return output.reshape(num)
    raise BadInputError(
        f"Output {name} has the shape {output.shape} for {counted(num, 'image')}; expected a score each: ({num},) or "
        f"({num}, 1). "
        "Where the model gives the probabilities of classes, let it give that of the anomalous one."
    )


def map_px(seen: Size, model: ImportedModel) -> Size:
    """Height and width of an image's map: a smaller one is enlarged to the model's input, a larger one stays."""
    is_smaller = all(side <= kept for side, kept in zip(seen, model.input_px, strict=True))
    return model.input_px if is_smaller else seen


def shaped(outputs: Outputs, model: ImportedModel, *, num: int) -> Prediction:
    """Outputs of an imported model in the form of a bundle's, computed in float64.

    Args:
        outputs: what the model gave for ``num`` images.
        model: what its outputs mean.
        num: number of images.

    Raises:
        BadInputError: an output has another shape than ``map_of`` and ``scores_of`` take.
    """
    maps = None
    if model.anomaly_map is not None:
        maps = map_of(outputs[model.anomaly_map], name=model.anomaly_map, num=num).astype(np.float64)
    if model.score is not None:
        score = scores_of(outputs[model.score], name=model.score, num=num).astype(np.float64)
    else:
        assert maps is not None  # noqa: S101 (the specification has one of both)
        score = _score_from(maps, model.score_from_map)
    if maps is None:
        maps = np.broadcast_to(score[:, None, None], (num, *model.input_px))
    else:
        size = map_px(maps.shape[1:], model)
        maps = np.stack([_resize(item[..., None], size)[..., 0] for item in maps])
    return Prediction(score.astype(np.float32), np.ascontiguousarray(maps, np.float32))


def judged(frames: Frames, model: ImportedModel, run: Callable[[Frames], Outputs]) -> Prediction:
    """Scores and maps in the form of a bundle's, one frame at a time, and one tile at a time where it has tiles.

    Frames are uint8 (N, H, W, C); ``run`` gives the model's outputs on one frame or tile, uint8 (1, h, w, C).
    """
    parts = []
    for frame in frames:
        images = cut(frame[None], model.tiles)
        seen = joined([shaped(run(image[None]), model, num=1) for image in images])
        parts.append(stitch(seen, model.tiles, model.frame_shape[:2]))
    return joined(parts)


def joined(parts: Sequence[Prediction]) -> Prediction:
    """Predictions of some images each, as one."""
    return Prediction(
        np.concatenate([part.score for part in parts]), np.concatenate([part.anomaly_map for part in parts])
    )


def _score_from(maps: NDArray[np.float64], rule: str | int | None) -> NDArray[np.float64]:
    values = np.sort(maps.reshape(len(maps), -1), axis=1)
    return np.asarray(values[:, -(rule if isinstance(rule, int) else 1) :].mean(axis=1))


@final
class OriginalModel:
    """An ONNX file as it came, opened in ONNX Runtime on the CPU.

    Args:
        path: the file; weights beside it are found there.
        model: what it takes and gives.

    Raises:
        BadInputError: ONNX Runtime cannot open it, or it has not the input or an output that ``model`` names, or one
            of another type.
        EnvironmentMissingError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, model: ImportedModel) -> None:
        ort = import_onnxruntime()
        self.path, self._model, self._failures = path, model, failures(ort)
        self._session = open_file(path)
        self.version = str(ort.__version__)
        self._check_ports()

    def _check_ports(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        model, file = self._model, self.path
        self._input = _port(inputs, model.input, kind="input", key="input", file=file)
        if len(inputs) > 1:
            raise BadInputError(
                f"{file} has the inputs {_names(inputs)}; expected one, the images. Fix the others to constants when "
                "it is exported."
            )
        self.names = [name for name in (model.score, model.anomaly_map) if name is not None]
        ports = {
            key: _port(outputs, name, kind="output", key=key, file=file)
            for key, name in (("score", model.score), ("anomaly_map", model.anomaly_map))
            if name is not None
        }
        for port in (self._input, *ports.values()):
            if port.type not in _DTYPES:
                raise BadInputError(
                    f"{file}: {port.name} is {port.type}; expected float32, float16 or float64: normalised images as "
                    "input, scores and maps as outputs. Name another one, or export it again without its own "
                    "pre-processing or verdict."
                )
        self._check_shape()

    def _check_shape(self) -> None:
        """Raise BadInputError unless the declared input takes what the specification says."""
        seen, expected = tuple(self._input.shape), self._model.input_shape()
        fits = len(seen) == 4 and all(
            not isinstance(side, int) or side == wanted for side, wanted in zip(seen[1:], expected, strict=True)
        )
        if not fits:
            raise BadInputError(
                f"{self.path}: its input {self._input.name} is {_shape(seen)}, and the pre-processing gives "
                f"(N, {', '.join(map(str, expected))}): {self._model.input_words()}. Set layout, channel_order, "
                "resize_px and crop_px to what the model was made for."
            )

    @property
    def dtype(self) -> str:
        """NumPy name of the input's element type."""
        return _DTYPES[self._input.type]

    @property
    def frozen_batch(self) -> int | None:
        """The only batch that the file declares to take; None where it declares none."""
        first = self._input.shape[0]
        return first if isinstance(first, int) else None

    @property
    def declared_input(self) -> str:
        """Name and declared shape of the input, in words."""
        return f"{self._input.name} {_shape(self._input.shape)}"

    def run(self, images: Frames) -> Outputs:
        """Outputs on a batch of frames, or of tiles, uint8 (N, H, W, C), as the file gives them.

        Raises:
            BadInputError: ONNX Runtime cannot run it on them.
        """
        values = prepare(images, self._model, dtype=self.dtype)
        try:
            # What is logged besides repeats the error.
            with caught_stderr():
                outputs = self._session.run(self.names, {self._input.name: values})
        except self._failures as error:
            raise BadInputError(
                f"{self.path}: ONNX Runtime cannot run it on {values.dtype} {values.shape}: {_cause(error)}."
            ) from None
        return {name: np.asarray(output) for name, output in zip(self.names, outputs, strict=True)}

    def __call__(self, frames: Frames) -> Prediction:
        """Scores and maps in the form of a bundle's, one frame and tile at a time."""
        return judged(frames, self._model, self.run)


def _cause(error: Exception) -> str:
    """What ONNX Runtime says went wrong in a node, without the places in its source."""
    words = " ".join(str(error).split())
    node = re.search(r"Name:'([^']*)'", words)
    said = words.partition("Status Message: ")[2].rpartition(" was false. ")[2] or words
    return (f"{node[1]}: " if node else "") + said[:300].removesuffix(".")


def _port(ports: list[Any], name: str, *, kind: str, key: str, file: Path) -> Any:
    for port in ports:
        if port.name == name:
            return port
    raise BadInputError(f"{file} has no {kind} {name!r}, which {key} names; it has {_names(ports)}. Name one of them.")


def _names(ports: list[Any]) -> str:
    return ", ".join(
        f"{port.name} {port.type.removeprefix('tensor(').removesuffix(')')} {_shape(port.shape)}" for port in ports
    )


def _shape(shape: Any) -> str:
    return f"({', '.join(str(side) if side is not None else '?' for side in shape)})"
