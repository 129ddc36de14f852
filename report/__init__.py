"""Reports for people: HTML pages, overlays, and the published tables with measured rows."""
