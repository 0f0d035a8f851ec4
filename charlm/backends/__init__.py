"""Backends that compute with a trained model: compiled kernels and numpy (torch's is in `nn`).

Nothing here imports torch, so that `sample`, `score` and `next` answer at once.
"""
