"""SPADE: retrieve the nearest good images, then compare every position with all positions of those images.

Cohen, Hoshen: "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", arXiv 2005.02357 (2020).

What differs, and why:

- Each level of the pyramid is searched alone and the distance maps are upsampled, averaged and smoothed, as the
  public re-implementation does. The paper upsamples and concatenates the features first, which stores the coarse
  levels sixteen times over.
- Distances are Euclidean (not squared), for images and positions alike.
- One nearest vector per position (the paper's kappa = 1). The image score keeps the paper's K = 50; where the gallery
  is smaller K is its size, and the fit's report says so.
- ``image_score="map"`` takes the largest value of the map as the score. The paper's mean distance to the K images
  compares whole images, so it hardly sees a small defect: it is for parts that differ as a whole.
- Two ways to a smaller gallery, both greedy k-centre and off by default: fewer images, and fewer vectors per image
  and level. The fit reports the covering radius of each: no distance can have grown by more than that.

The gallery and its search, and what of them may be fp16, stand in ``pyramid``.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..base import FitContext
from ..training.images import ImageSet
from .pyramid import AbstractPyramid, PyramidConfig, RetrievalScore


@dataclass(frozen=True, kw_only=True)
class SpadeConfig(PyramidConfig):
    """Parameters of SPADE: those of the gallery, with the paper's K = 50."""


class Spade(AbstractPyramid[SpadeConfig]):
    """SPADE in its training form."""

    config_class = SpadeConfig

    def fit(self, images: ImageSet, holdout: ImageSet, *, context: FitContext) -> dict[str, Any]:  # noqa: ARG002
        """Store the features of the good images."""
        return self.store(images, context)

    def retrieval_score(self) -> RetrievalScore:
        """Return the mean distance to the K nearest images."""
        return partial(torch.mean, dim=1)
