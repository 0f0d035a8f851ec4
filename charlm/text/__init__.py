"""Text in: corpora, vocabularies, windows. Numpy only, no torch."""
