"""The table of anomalib's models. A checkpoint does not name its model: it is known by a tensor that only it has."""

#: Name of a tensor or of a module below ``model.`` → converter.
MODELS = {
    "gaussian.inv_covariance": "lineproof.importers.anomalib.padim:convert_padim",
    "memory_bank": "lineproof.importers.anomalib.patchcore:convert_patchcore",
    "fast_flow_blocks": "lineproof.importers.anomalib.fastflow:convert_fastflow",
    "decoder.layer1": "lineproof.importers.anomalib.reverse_distillation:convert_reverse_distillation",
    "decoders": "lineproof.importers.anomalib.cflow:convert_cflow",
    "graph.graph.module_list": "lineproof.importers.anomalib.csflow:convert_csflow",
    "reconstructive_subnetwork": "lineproof.importers.anomalib.draem:convert_draem",
    "pca_model": "lineproof.importers.anomalib.dfm:convert_dfm",
    "student_model": "lineproof.importers.anomalib.stfpm:convert_stfpm",
    "quantiles": "lineproof.importers.anomalib.efficient_ad:convert_efficient_ad",
}
