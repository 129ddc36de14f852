"""The built-in samples: images of an object and a texture, scans of a rigid and a soft part, with drawn defects."""
