"""CUDA for the GPU engines: Python bindings and device buffers."""
