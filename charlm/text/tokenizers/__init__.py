"""Vocabularies and tokenizers: characters, bytes, words, bpe."""
