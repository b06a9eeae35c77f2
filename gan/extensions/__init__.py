"""The five extensions of section 7 of Goodfellow et al. (2014)."""
