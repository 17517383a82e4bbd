"""Counts mitoses in whole-slide images: mitosis coordinates and the mitotic activity index as JSON."""

__version__ = "0.1.0"
