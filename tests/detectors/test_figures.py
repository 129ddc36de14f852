"""Parameters that a method adds to its backbone, held to the published figures."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from lineproof.detectors.backbones.features import Backbone  # noqa: E402
from lineproof.detectors.base import build_detector, make_config  # noqa: E402
from lineproof.detectors.flow import fastflow as fastflow_module  # noqa: E402
from lineproof.detectors.flow.fastflow import FastFlow, FastFlowConfig  # noqa: E402


def build(name, **settings):
    return build_detector(name, make_config(name, {"weights": "random", "resize_px": 256, **settings}))


def flow_on_meta(channels, size, *, steps, clamp, subnet):  # noqa: ARG001
    """The subnets of a flow with their sizes but no memory, global scales and offsets as FrEIA has them."""
    with torch.device("meta"):
        blocks = []
        for step in range(steps):
            passive = channels - channels // 2
            block = nn.Module()
            block.subnet = subnet(step)(passive, 2 * (channels - passive))
            block.global_scale = nn.Parameter(torch.empty(1, channels, 1, 1))
            block.global_offset = nn.Parameter(torch.empty(1, channels, 1, 1))
            blocks.append(block)
        return nn.ModuleList(blocks)


def test_a_flow_on_meta_counts_as_freias():
    subnet = lambda step: fastflow_module._subnet(FastFlowConfig(), step)  # noqa: E731
    made = {"steps": 3, "clamp": 2.0, "subnet": subnet}
    real, meta = fastflow_module.build_flow(21, (4, 5), **made), flow_on_meta(21, (4, 5), **made)
    counts = [sum(item.numel() for item in flow.parameters() if item.requires_grad) for flow in (real, meta)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("backbone", "only_3x3", "millions"),
    [("wide_resnet50_2", False, 41.31), ("resnet18", True, 4.65), ("resnet18", False, 2.59)],
)
def test_extra_parameters_of_fastflow(backbone, only_3x3, millions, monkeypatch):
    # A wide_resnet50_2's flows take a minute to be filled with random values that nobody reads.
    monkeypatch.setattr(fastflow_module, "build_flow", flow_on_meta)
    detector = build("fastflow", backbone=backbone, only_3x3=only_3x3, crop_px=256)
    subnets = [block.subnet for flow in detector.flows for block in flow]
    in_subnets = sum(item.numel() for subnet in subnets for item in subnet.parameters())
    # The published counts leave out FrEIA's scale and offset per channel and block: 0.03 M of wide_resnet50_2.
    assert abs(in_subnets / 1e6 - millions) < 0.005
    assert detector.extra_parameters() - in_subnets == 2 * 8 * sum(detector.backbone.channels)


@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_bank_and_gaussians_are_no_parameters(name):
    detector = build(name, backbone="wide_resnet50_2", crop_px=224)
    assert detector.extra_parameters() == 0
    # The network is cut after its third stage: without layer4 and classifier 24.86 of 68.88 M are left.
    assert abs(sum(item.numel() for item in detector.backbone_parameters()) / 1e6 - 24.86) < 0.01


def test_backbone_is_cut_frozen_and_stays_in_evaluation():
    backbone = Backbone("resnet18", "random", strides=(4, 8, 16)).train()
    assert backbone.channels == (64, 128, 256)
    assert backbone.map_sizes((96, 64)) == ((24, 16), (12, 8), (6, 4))
    assert not [name for name, item in backbone.named_parameters() if item.requires_grad]
    assert not backbone.training
    assert not [name for name, _ in backbone.named_parameters() if "layer4" in name or ".fc" in name]


def test_fastflow_counts_its_flows_only():
    config = dataclasses.replace(FastFlowConfig(), backbone="resnet18", weights="random", crop_px=(64, 64), steps=1)
    detector = FastFlow(config)
    assert detector.extra_parameters() == sum(
        item.numel() for item in detector.flows.parameters() if item.requires_grad
    )
