"""Named configurations: each file states only its differences from the defaults."""
