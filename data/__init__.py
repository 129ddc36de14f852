"""Images and data sets: decoding, inputs, layouts of benchmarks and of plain folders, the built-in sample."""
