"""One file a stage: each reads named files and writes named files."""
