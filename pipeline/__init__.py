"""What is done in which order, and what is kept."""
