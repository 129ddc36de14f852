"""anomalib's PaDiM.

It differs from ours in the border of the smoothing, and in keeping the inverse of each covariance: ours is a factor W
with ``WᵀW = Σ⁻¹``, here the transposed Cholesky factor of what the checkpoint holds.
"""

import torch
from torch import Tensor

from ...core.errors import BadInputError
from .source import Converted, Source, take_backbone

_PARTS = 512
#: What inverting a covariance in float32 leaves of asymmetry and of negative values, as a share of the largest one.
_ROUNDING = 1e-2
_GAUSSIANS = "The tensors model.gaussian.inv_covariance in this checkpoint"


def convert_padim(source: Source) -> Converted:
    """Convert a PaDiM model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    backbone = settings.take("backbone", "resnet18")
    settings.require("layers", ["layer1", "layer2", "layer3"])
    settings.leave("pre_trained")
    num_features = settings.take_optional("n_features", int)
    tensors.leave("anomaly_map_generator")
    channels, order = tensors.take("idx").sort()
    if num_features not in (None, len(channels)) or channels.min() < 0 or len(channels.unique()) < len(channels):
        raise BadInputError(
            f"The PaDiM in this checkpoint draws {len(channels)} channels from {int(channels.min())} on and was made "
            f"with n_features = {num_features}; expected as many different ones, from 0 on. The file was changed."
        )
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
    wide = inverse.double()
    if (wide - wide.transpose(1, 2)).abs().amax() > _ROUNDING * wide.abs().amax():
        raise BadInputError(f"{_GAUSSIANS} are not symmetric; expected inverse covariances. The file was changed.")
    symmetric = 0.5 * (inverse.double() + inverse.double().transpose(1, 2))
    triangle, info = torch.linalg.cholesky_ex(symmetric)
    factor: Tensor = triangle.transpose(1, 2).contiguous()
    if failed := info.nonzero().flatten().tolist():
        values, vectors = torch.linalg.eigh(symmetric[failed])
        if (values.amin(1) < -_ROUNDING * values.abs().amax(1)).any():
            raise BadInputError(
                f"{_GAUSSIANS} have negative values; expected inverse covariances. The file was changed."
            )
        factor[failed] = values.clamp(min=0).sqrt()[:, :, None] * vectors.transpose(1, 2)
    return factor.float()
