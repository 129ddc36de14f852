"""Export of a trained detector to a bundle (ONNX), and of a bundle to a TensorRT plan."""
