"""Generative adversarial nets (Goodfellow et al., 2014): the science, without Ray or MLflow."""
