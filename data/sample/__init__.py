"""The built-in sample: an object and a texture with drawn defects."""
