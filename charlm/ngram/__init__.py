"""N-gram models, the baseline of every report."""
