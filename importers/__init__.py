"""Other people's checkpoints and ONNX files: each becomes a run or a bundle, and then goes the ordinary way."""
