"""anomalib's DFM.

Its principal components are ours. Its Gaussian within their subspace is kept as the singular vectors U and values σ of
the centred features: the whitening is U/σ. Where it was fitted, in releases that could, the mean of all features had
been subtracted twice, so that the Gaussian's centre is not 0, as it should be; it is carried over as it is.
"""

import torch

from ...core.errors import BadInputError
from .source import Converted, Source, take_backbone

#: Stages of a ResNet and the strides of their maps.
_STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
_NO_MAP = "anomalib's DFM with score_type nll has no map: every pixel of the map shows the score of the image."


def convert_dfm(source: Source) -> Converted:
    """Convert a DFM model.

    Raises:
        BadInputError: its layer is no stage of a ResNet, it was made with other settings, or holds other tensors, that
            ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    backbone, layer = settings.take("backbone", "resnet50"), settings.take("layer", "layer3")
    if layer not in _STRIDES:
        raise BadInputError(
            f"The DFM in this checkpoint models the layer {layer} of {backbone}; expected a stage of a ResNet: "
            f"{', '.join(_STRIDES)}."
        )
    score = settings.take("score_type", "fre")
    pool = max(1, settings.take("pooling_kernel_size", 4))
    settings.leave("pre_trained", "pca_level")
    tensors.leave("pca_model.num_components")
    components = tensors.take("pca_model.singular_vectors")
    centre, vectors, deviations = (
        tensors.take(f"gaussian_model.{name}").double() for name in ("mean_vec", "u_mat", "sigma_mat")
    )
    if score == "nll":
        gaussian = centre, vectors / deviations, 2.0 * deviations.log().sum()
    else:
        # Fitted for the likelihood alone.
        gaussian = torch.zeros(components.shape[1]), torch.zeros(1, 1), torch.zeros(())
    state = take_backbone(source, "feature_extractor.feature_extractor") | {
        "mean": tensors.take("pca_model.mean"),
        "components": components,
        **{name: item.float() for name, item in zip(("centre", "whitening", "log_determinant"), gaussian, strict=True)},
    }
    chosen = {
        "backbone": backbone,
        "stride": _STRIDES[layer],
        "pool": pool,
        "num_components": components.shape[1],
        "score": score,
    }
    notes = (_NO_MAP,) if score == "nll" else ()
    return Converted(model="Dfm", detector="dfm", settings=chosen, state=state, notes=notes)
