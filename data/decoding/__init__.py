"""From the bytes of a file to uint8 pixels, or to the points of a cloud, by stated rules."""
