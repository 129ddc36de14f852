"""TensorRT plans: build, proof of precision, progress."""
