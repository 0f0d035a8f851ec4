"""N-gram models over token ids, and the overlap of two texts."""
