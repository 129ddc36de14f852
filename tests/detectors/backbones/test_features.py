"""Stages of timm networks."""

import pytest
import timm
import torch

from lineproof.core.errors import UsageError
from lineproof.detectors.backbones.features import Backbone, late_stages
from lineproof.detectors.flow.alexnet import AlexNet


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["layer2", "layer3", "layer4"]),
        ("tf_efficientnet_lite0", [*(f"blocks.{index}" for index in range(2, 7)), "conv_head", "bn2"]),
        ("mobilenetv3_small_050", ["blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5"]),
    ],
)
def test_late_stages_begin_after_the_map_at_stride_4(name, expected):
    stages = late_stages(timm.create_model(name, pretrained=False))
    assert list(stages[: len(expected)]) == expected


def test_paths_lead_to_modules_of_the_backbone():
    backbone = Backbone("resnet18", "random", strides=(16,))
    paths = backbone.late_stages()
    assert paths[:2] == ("network.layer2", "network.layer3")
    for path in paths:
        backbone.get_submodule(path)
    alexnet = AlexNet("random")
    assert alexnet.late_stages()[0] == "layers.3"
    for path in alexnet.late_stages():
        alexnet.get_submodule(path)


@pytest.mark.parametrize(
    ("name", "strides", "expected"),
    [
        ("resnet18", (4, 32), ("layer3", "layer4")),
        ("resnet18", (4, 16), ("layer3",)),
        ("tf_efficientnet_lite0", (8, 32), ("blocks.3", "blocks.4", "blocks.5", "blocks.6")),
    ],
)
def test_stages_after_a_stride_end_with_the_last_tapped_map(name, strides, expected):
    assert Backbone(name, "random", strides=strides).stages_after(8) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", (("conv1", "bn1", "act1", "maxpool", "layer1"), ("layer2",), ("layer3",))),
        (
            "tf_efficientnet_lite0",
            (("conv_stem", "bn1", "blocks.0", "blocks.1"), ("blocks.2",), ("blocks.3", "blocks.4")),
        ),
    ],
)
def test_stages_one_after_the_other_are_the_network(name, expected):
    backbone = Backbone(name, "random", strides=(4, 8, 16))
    assert backbone.stages() == expected
    item = torch.rand(2, 3, 64, 96)
    for stage, wanted in zip(expected, backbone(item), strict=True):
        item = backbone.run(stage, item)
        torch.testing.assert_close(item, wanted)


def test_a_network_that_is_no_chain_of_stages_is_refused():
    with pytest.raises(UsageError, match="a HighResolutionNet, does more than run its stages one after the other"):
        Backbone("hrnet_w18_small", "random", strides=(4, 8, 16)).stages()
    backbone = Backbone("test_resnet", "random", strides=(4, 8, 16))
    backbone.network.forward_intermediates = lambda images, **_: [images] * 3
    with pytest.raises(UsageError, match="a ResNet, does more than run its stages"):
        backbone.stages()
