"""Import of a PyTorch module: it is written as an ONNX file, and answers as the reference itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import final

import onnx_ir as ir
import torch
from torch import Tensor, nn

from ..bundle.manifest import IMPORTED_MODULE
from ..core.errors import BadInputError, ExportError, UsageError
from ..core.imported_model import ImportedModel
from ..core.prediction import Prediction
from ..core.progress import Progress, silent
from ..core.spec import Frames, TensorSpec
from ..core.threshold import REFERENCE_ENGINE
from ..core.words import counted
from ..data.dataset import Dataset, check_contents, open_dataset
from ..export.passes.names import name_nodes
from ..export.to_onnx import trace
from ..runtime.original import OriginalModel, Outputs, judged, prepare
from .onnx_file.batch import USUAL_BATCH
from .onnx_file.bundle import Origin, import_model
from .onnx_file.options import ImportOptions, ImportResult
from .onnx_file.specification import read_specification

_EXCEPTION = "with max_batch 1 it need not do the latter"
_NO_EXCEPTION = "the tiles of a frame are a batch"


def from_module(
    module: nn.Module,
    *,
    preprocessing: ImportedModel | Path | str,
    data: Dataset | Path | str,
    out: Path | str,
    options: ImportOptions | None = None,
    progress: Progress = silent,
) -> ImportResult:
    """Make a bundle of a PyTorch module; the module itself gives the golden answers and the scores for the threshold.

    Args:
        module: maps normalised images, float32 (N, 3, h, w) or as the specification says, to the score and the map
            that it names, in this order, or to the one of both; in evaluation mode, on the CPU.
        preprocessing: what it takes and gives, or a JSON file that says so; its names are given to the graph.
        data: data set with good images that it was not trained on, or the folder of one category.
        out: folder of the bundle; a bundle that is there is replaced.
        options: options of the import; None takes the defaults. ``max_batch`` 1 writes a graph of batch 1, unless
            there are tiles: those of a frame are a batch.
        progress: called at every step.

    Returns:
        The bundle, not yet verified.

    Raises:
        UsageError: the module is in training mode, lies on another device, or an option is out of its range.
        BadInputError: it gives other outputs than the specification names, or the data set lacks good images.
        ExportError: it does not trace to ONNX.
    """
    options = options or ImportOptions()
    options.check()
    model = preprocessing if isinstance(preprocessing, ImportedModel) else read_specification(Path(preprocessing))
    dataset = data if isinstance(data, Dataset) else check_contents(open_dataset(data), "image")
    title = type(module).__name__.lower()
    reference = _ModuleReference(module, model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{title}.onnx"
        progress("tracing", 0, 0)
        ir.save(_traced(reference, options), path)
        origin = Origin(
            model=model,
            file=OriginalModel(path, model),
            reference=reference,
            detector=IMPORTED_MODULE,
            title=title,
            library="PyTorch",
            library_version=str(torch.__version__),
            engine=REFERENCE_ENGINE,
            words=f"{type(module).__name__} in PyTorch {torch.__version__}",
        )
        return import_model(origin, dataset=dataset, out=Path(out), options=options, progress=progress)


@final
class _ModuleReference:
    """The module on frames that were prepared without the graph."""

    def __init__(self, module: nn.Module, model: ImportedModel) -> None:
        if module.training:
            raise UsageError(f"{type(module).__name__} is in training mode; expected evaluation mode: call its eval().")
        devices = {str(item.device) for item in (*module.parameters(), *module.buffers())} - {"cpu"}
        if devices:
            raise UsageError(f"{type(module).__name__} lies on {', '.join(devices)}; expected the CPU: call its cpu().")
        self.named = _Named(module, model).eval()
        self.model = model

    def __call__(self, frames: Frames) -> Prediction:
        return judged(frames, self.model, self._run)

    def _run(self, images: Frames) -> Outputs:
        with torch.inference_mode():
            outputs = self.named(torch.from_numpy(prepare(images, self.model, dtype="float32")))
        return {name: item.numpy() for name, item in zip(self.named.names, outputs, strict=True)}


class _Named(nn.Module):
    """A module whose outputs are a tuple, one tensor for each that the specification names."""

    def __init__(self, module: nn.Module, model: ImportedModel) -> None:
        super().__init__()
        # So called, its name goes from the names of nodes and weights, see ``export.passes.names``.
        self.detector = module
        self.names = [name for name in (model.score, model.anomaly_map) if name is not None]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        seen = self.detector(images)
        outputs = (seen,) if isinstance(seen, Tensor) else tuple(seen)
        if len(outputs) != len(self.names) or not all(isinstance(item, Tensor) for item in outputs):
            kinds = ", ".join(type(item).__name__ for item in outputs)
            raise BadInputError(
                f"{type(self.detector).__name__} returns {counted(len(outputs), 'value')} ({kinds}); expected "
                f"{counted(len(self.names), 'tensor')}: {', '.join(self.names)}."
            )
        return outputs


def _traced(reference: _ModuleReference, options: ImportOptions) -> ir.Model:
    named, model = reference.named, reference.model
    # What it returns is looked at before it is traced, so that the error is ours.
    reference(torch.zeros((1, *model.frame_shape), dtype=torch.uint8).numpy())
    num = model.num_tiles
    limit = options.max_batch or USUAL_BATCH
    batch = 1 if limit * num == 1 else "N"
    spec = TensorSpec(model.input, "float32", (batch, *model.input_shape()))
    try:
        traced = trace(named, (spec,), outputs=named.names, max_batch=limit * num)
    except ExportError as error:
        raise ExportError(
            f"{type(named.detector).__name__} {error} Its forward must be free of Python branches on tensor values, "
            f"and keep the batch symbolic; {_EXCEPTION if num == 1 else _NO_EXCEPTION}."
        ) from error
    name_nodes(traced, first="module")
    return traced
