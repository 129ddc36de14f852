"""Import of a model's ONNX file: its own graph between our pre-processing and the shaping of its outputs."""
