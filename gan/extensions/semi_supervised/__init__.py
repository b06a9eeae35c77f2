"""Classification with few labels: three methods, how each is trained, kept and scored."""
