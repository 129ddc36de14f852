"""Errors of the export for a detector that does not trace, or whose outputs have another dtype or shape."""

import logging

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
ir = pytest.importorskip("onnx_ir")

from lineproof.core.errors import ExportError  # noqa: E402
from lineproof.core.spec import Preprocessing  # noqa: E402
from lineproof.detectors.base import Deployed  # noqa: E402
from lineproof.export.to_onnx import OPSET, export_onnx, output_specs  # noqa: E402

SPEC = Preprocessing.of((8, 8, 3), (8, 8), (8, 8))


class Post(torch.nn.Module):
    """Score and map by a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, maps):
        return self.function(maps)


class Lowered:
    """All that export_onnx asks of a detector."""

    def __init__(self, function):
        self.function = function

    def lower(self):
        return Deployed(torch.nn.Identity(), torch.nn.Identity(), Post(self.function))


def mean_and_map(images):
    anomaly_map = images.square().sum(1)
    return anomaly_map.amax((1, 2)), anomaly_map


def test_a_detector_is_written_with_a_symbolic_batch():
    model = export_onnx(Lowered(mean_and_map), SPEC, max_batch=4)
    assert model.opset_imports[""] == OPSET
    batch = model.graph.inputs[0].shape[0]
    assert not isinstance(batch, int)
    assert [value.shape[0] for value in model.graph.outputs] == [batch, batch]
    assert model.graph.inputs[0].dtype == ir.DataType.UINT8
    assert {node.name.split("/")[0] for node in model.graph} == {"preprocess", "post"}


def test_a_branch_on_a_value_is_refused():
    def branching(images):
        if images.sum() > 0:
            images = images + 1
        return mean_and_map(images)

    with pytest.raises(
        ExportError, match=r"(?s)Lowered does not trace to ONNX: .* free of Python branches on tensor values"
    ):
        export_onnx(Lowered(branching), SPEC, max_batch=4)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: (mean_and_map(x)[0], x[:, 0, ::2]), r"Output anomaly_map came out as .*\('N', 4, 8\); expected"),
        (lambda x: (mean_and_map(x)[0][:, None], x[:, 0]), r"Output score came out as .*\('N', 1\); expected"),
        (lambda x: (mean_and_map(x)[0].long(), x[:, 0]), r"Output score came out as INT64"),
    ],
)
def test_other_outputs_are_refused(function, words):
    with pytest.raises(ExportError, match=words):
        export_onnx(Lowered(function), SPEC, max_batch=4)


def test_export_is_quiet_and_leaves_logging_alone(capfd):
    before = logging.getLogger("torch.onnx").level
    export_onnx(Lowered(mean_and_map), SPEC, max_batch=2)
    assert logging.getLogger("torch.onnx").level == before
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_outputs_have_the_crops_size():
    score, anomaly_map = output_specs(Preprocessing.of((50, 60, 3), (40, 44), (32, 36)))
    assert (score.shape, anomaly_map.shape) == (("N",), ("N", 32, 36))
