"""Engines: what computes with a trained model. Compiled kernels, numpy, or (in `nn`) torch.

None of this imports torch, so that `sample`, `score` and `next` answer at once.
"""
