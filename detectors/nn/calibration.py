"""Statistics of batch normalisations, as a function of the weights.

Running means lag behind the weights at high learning rates. So the statistics are computed anew, over fixed
training images, before every evaluation, and belong exactly to the weights of that epoch.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_CALIBRATION_IMAGES = 64


def recalibrate(module: nn.Module, run: Callable[[Any], Any], *, batches: Iterable[Any]) -> None:
    """Set the statistics of every batch normalisation to their mean over ``batches``, under the present weights.

    Args:
        module: module with the batch normalisations; it is left in evaluation mode.
        run: runs ``module`` on a batch.
        batches: at least one batch, best of equal sizes.
    """
    norms = [item for item in module.modules() if isinstance(item, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None makes torch take the plain mean over all batches.
        norm.momentum = None
    module.train()
    with torch.no_grad():
        for batch in batches:
            run(batch)
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def calibration_parts(num_images: int, batch_size: int) -> Iterator[Tensor]:
    """Return the indices of at most 64 images, evenly spread, in batches int64 (B,) of equal size."""
    count = min(num_images, _CALIBRATION_IMAGES)
    spread = torch.arange(count) * num_images // count
    size = min(batch_size, count)
    return iter(spread[: count // size * size].split(size))
