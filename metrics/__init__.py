"""Exact metrics of anomaly detection and their statistics: arrays in, numbers out.

Metrics are streamed: update image by image, merge parts, compute at the end. No threshold is sampled and no score is
binned. A state is a bag of numbers, so that the result is the same to the last bit whatever the order of the images,
the number of parts, and the number of threads.
"""
