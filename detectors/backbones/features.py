"""Feature maps of a frozen timm network, and a cache for them."""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.progress import Progress
from ...core.size import Size
from ..training.devices import full_precision, moved
from ..training.images import ImageSet
from .frozen import FrozenNetwork
from .weights import create_network, weights_record

_MEMORY_LIMIT_BYTES = 3 << 30


class Backbone(FrozenNetwork):
    """A frozen, pretrained network cut after its last tapped stage.

    Args:
        name: name of the network in timm.
        weights: see ``weights.create_network``.
        strides: down-scale factors of the maps to tap.

    Attributes:
        strides: down-scale factor of each tapped map.
        channels: channels C of each tapped map.

    Raises:
        UsageError: the network gives no feature maps, or none at one of these strides.
    """

    def __init__(self, name: str, weights: str, *, strides: Sequence[int]) -> None:
        super().__init__()
        network: Any = create_network(name, weights)
        if not callable(getattr(network, "forward_intermediates", None)):
            raise UsageError(f"timm's {name} gives no intermediate feature maps. Use a CNN such as resnet18.")
        reductions = [int(info["reduction"]) for info in network.feature_info]
        missing = [stride for stride in strides if stride not in reductions]
        if missing:
            raise UsageError(f"{name} has maps at strides {reductions}, none at {missing}. Use another backbone.")
        self.indices = [len(reductions) - 1 - reductions[::-1].index(stride) for stride in strides]
        network.prune_intermediate_layers(self.indices, prune_norm=False, prune_head=True)
        self.network = network.eval().requires_grad_(False)
        self.strides = tuple(strides)
        self.channels = tuple(int(network.feature_info[index]["num_chs"]) for index in self.indices)
        self.mean = tuple(network.pretrained_cfg["mean"])
        self.std = tuple(network.pretrained_cfg["std"])
        self.pretrained = weights_record(name, weights)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of normalised images.

        Args:
            images: float32 (N, 3, H, W), normalised.

        Returns:
            One float32 (N, C, H / stride, W / stride) per tapped stride.
        """
        network: Any = self.network
        maps = network.forward_intermediates(images, indices=self.indices, intermediates_only=True, stop_early=True)
        return tuple(maps)

    def late_stages(self) -> tuple[str, ...]:
        """Return the paths, below this module, of the modules after the network's map at stride 4.

        Rounding in the earliest stages is carried through all that follow: a method whose score is a mean over
        everything keeps them in fp32.
        """
        return tuple(f"network.{path}" for path in late_stages(self.network))

    def stages_after(self, stride: int) -> tuple[str, ...]:
        """Return the paths, below ``network``, of the modules after its map at a stride, up to the last tapped map.

        Unlike ``late_stages`` they end where this module's forward ends: no head, and no stage behind the last map.
        """
        information: Any = self.network.feature_info
        modules = late_stages(self.network, stride=stride)
        return modules[: modules.index(str(information[self.indices[-1]]["module"])) + 1]

    def stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the paths, below ``network``, of the modules that lead to each tapped map from the one before it.

        Run one after the other they are the network, so that something can be done to a map on its way.

        Raises:
            UsageError: the network does more than run its modules one after the other.
        """
        information: Any = self.network.feature_info
        modules = _chain(self.network)
        ends = [str(information[index]["module"]) for index in self.indices]
        if set(ends) <= set(modules):
            begins = [0, *(modules.index(end) + 1 for end in ends[:-1])]
            stages = tuple(tuple(modules[a : modules.index(b) + 1]) for a, b in zip(begins, ends, strict=True))
            if self._is_run_by(stages):
                return stages
        raise UsageError(
            f"The backbone, a {type(self.network).__name__}, does more than run its stages one after the other, so "
            "that its maps cannot be changed on their way. Use such as resnet18 or tf_efficientnet_lite0."
        )

    def _is_run_by(self, stages: tuple[tuple[str, ...], ...]) -> bool:
        item = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for stage, wanted in zip(stages, self(item), strict=True):
                item = self.run(stage, item)
                if item.shape != wanted.shape or not torch.allclose(item, wanted, rtol=1e-4, atol=1e-5):
                    return False
        return True

    def run(self, stage: Sequence[str], maps: Tensor) -> Tensor:
        """Run the modules of one of ``stages``: float32 (N, C, h, w) → float32 (N, C', h', w')."""
        for path in stage:
            maps = self.network.get_submodule(path)(maps)
        return maps

    def map_sizes(self, image_px: Size) -> tuple[Size, ...]:
        """Return height and width of each tapped map, for images of this height and width."""
        probe = next(self.parameters())
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, *image_px, device=probe.device))
        return tuple((int(item.shape[-2]), int(item.shape[-1])) for item in maps)


def late_stages(network: nn.Module, *, stride: int = 4) -> tuple[str, ...]:
    """Return the paths of a timm network's modules after its last feature map at a stride or finer, in order.

    Args:
        network: timm network; its ``feature_info`` names the modules that end its feature maps.
        stride: down-scale factor of the map.
    """
    information: Any = network.feature_info
    taps = [(int(info["reduction"]), str(info["module"])) for info in information]
    modules = _chain(network)
    early = [module for reduction, module in taps if reduction <= stride]
    return tuple(modules[modules.index(early[-1]) + 1 :]) if early else ()


def _chain(network: nn.Module) -> list[str]:
    """Return the paths of a timm network's modules in order; a container of feature maps stands as its children."""
    information: Any = network.feature_info
    containers = {str(info["module"]).rpartition(".")[0] for info in information} - {""}
    modules: list[str] = []
    for name, child in network.named_children():
        modules += [f"{name}.{index}" for index, _ in child.named_children()] if name in containers else [name]
    return modules


def cache_features(
    compute: Callable[[Tensor], tuple[Tensor, ...]],
    images: ImageSet,
    *,
    device: torch.device,
    progress: Progress,
    stage: str,
    batch_size: int = 16,
) -> list[Tensor]:
    """Run ``compute`` once over all images and keep its outputs, in order.

    On CUDA float32 is computed in full, without TF32: what a fit keeps of them is later compared with features that the
    reference computes on a CPU. The result lies in memory, or in an unnamed temporary file mapped into memory where it
    exceeds 3 GB.

    Args:
        compute: maps normalised images, float32 (N, 3, H, W), to one tensor (N, …) per kind of feature.
        images: images to compute features of.
        device: device that ``compute`` runs on.
        progress: called after every batch.
        stage: name of the work for ``progress``.
        batch_size: images per batch.

    Returns:
        One float32 tensor (num_images, …) on the CPU per tensor that ``compute`` returns.
    """
    stores: list[Tensor] = []
    for start in range(0, len(images), batch_size):
        batch = images.batch(range(start, min(start + batch_size, len(images))))
        with torch.no_grad(), full_precision():
            outputs = compute(moved(batch, device))
        if not stores:
            sizes = [(len(images), *item.shape[1:]) for item in outputs]
            num_bytes = 4 * sum(math.prod(size) for size in sizes)
            stores = [_allocate(size, in_file=num_bytes > _MEMORY_LIMIT_BYTES) for size in sizes]
        for store, item in zip(stores, outputs, strict=True):
            store[start : start + len(batch)] = item.float().cpu()
        progress(stage, start + len(batch), len(images))
    return stores


def _allocate(size: tuple[int, ...], *, in_file: bool) -> Tensor:
    if not in_file:
        return torch.empty(size)
    with tempfile.TemporaryDirectory(prefix="lineproof-features-") as folder:
        # The mapping outlives the name: the space is freed when the last tensor goes.
        flat = torch.from_file(str(Path(folder) / "features"), shared=True, size=math.prod(size))
    return flat.view(size)
