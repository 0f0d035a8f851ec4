"""Character- and word-level recurrent language models: train, sample, score, evaluate."""

__version__ = "0.1.0"
