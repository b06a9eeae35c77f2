"""How many trials, where, and with which settings: sweeps on Ray, tracked in MLflow."""
