"""Recurrent layers and the language model that is built of them."""
