"""Image data sets and their splits."""
