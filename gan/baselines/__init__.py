"""The rivals of Table 1 and of the related work, one file each, behind `Baseline`."""
