"""anomalib's PatchCore.

It joins the 3×3 means of two layers without the paper's pooling to 1024 channels, repeats the patch scores before they
are smoothed, and re-weights the score of an image as the paper does.
"""

from ...detectors.nn.neighbours import neighbour_table
from .source import Converted, Source, take_backbone


def convert_patchcore(source: Source) -> Converted:
    """Convert a PatchCore model.

    Raises:
        BadInputError: it was made with settings, or holds tensors, that ours cannot have.
    """
    tensors, settings = source.tensors, source.settings
    backbone = settings.take("backbone", "wide_resnet50_2")
    settings.require("layers", ["layer2", "layer3"])
    settings.require("precision", "float32")
    settings.leave("pre_trained", "coreset_sampling_ratio")
    bank = tensors.take("memory_bank").float()
    num_neighbours = min(settings.take_count("num_neighbors", 9), len(bank))
    tensors.leave("anomaly_map_generator")
    tensors.leave("feature_pooler")
    state = take_backbone(source, "feature_extractor.feature_extractor") | {
        "bank": bank,
        "table": neighbour_table(bank, num_neighbours),
    }
    chosen = {
        "backbone": backbone,
        "num_neighbours": num_neighbours,
        "coreset_size": len(bank),
        "embedding": "concatenated",
        "growth": "nearest",
        "border": "reflect",
    }
    return Converted(model="Patchcore", detector="patchcore", settings=chosen, state=state)
