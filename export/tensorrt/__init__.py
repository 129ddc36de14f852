"""TensorRT engines: precision, progress, build."""
