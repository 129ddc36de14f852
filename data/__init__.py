"""Images and data sets: decoding, MVTec AD, MVTec 3D-AD, plain folders, the built-in sample."""
