"""Trained detector to bundle (ONNX); bundle to TensorRT plan."""
