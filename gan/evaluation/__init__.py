"""One file a score; a score takes samples, never a model."""
