"""anomalib's PaDiM.

It differs from ours in the border of the smoothing, and in keeping the inverse of each covariance: ours is a factor W
with ``WᵀW = Σ⁻¹``, here the transposed Cholesky factor of what the checkpoint holds.
"""

import torch
from torch import Tensor

from .source import Converted, Source, take_backbone

_PARTS = 512


def convert_padim(source: Source) -> Converted:
    """Convert a PaDiM model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    backbone = settings.take("backbone", "resnet18")
    settings.require("layers", ["layer1", "layer2", "layer3"])
    settings.leave("pre_trained", "n_features")
    tensors.leave("anomaly_map_generator")
    channels, order = tensors.take("idx").sort()
    mean = tensors.take("gaussian.mean")[order].T.contiguous()
    inverse = tensors.take("gaussian.inv_covariance")
    state = take_backbone(source, "feature_extractor.feature_extractor") | {
        "gaussians.channels": channels,
        "gaussians.mean": mean,
        "gaussians.factor": torch.cat(
            [covariance_factor(part[:, order][:, :, order]) for part in inverse.split(_PARTS)]
        ),
    }
    chosen = {"backbone": backbone, "num_features": len(channels), "border": "reflect"}
    return Converted(model="Padim", detector="padim", settings=chosen, state=state)


def covariance_factor(inverse: Tensor) -> Tensor:
    """Return W float32 (P, d, d) with ``WᵀW`` = inverse (P, d, d); what rounding made negative in it counts as 0."""
    symmetric = 0.5 * (inverse.double() + inverse.double().transpose(1, 2))
    triangle, info = torch.linalg.cholesky_ex(symmetric)
    factor: Tensor = triangle.transpose(1, 2).contiguous()
    if failed := info.nonzero().flatten().tolist():
        values, vectors = torch.linalg.eigh(symmetric[failed])
        factor[failed] = values.clamp(min=0).sqrt()[:, :, None] * vectors.transpose(1, 2)
    return factor.float()
