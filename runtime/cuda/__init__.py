"""CUDA as the GPU engines use it: bindings and buffers."""
