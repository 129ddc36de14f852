"""Reports for people: HTML pages, overlays, and the tables of Zheng et al. 2022 with measured rows."""
