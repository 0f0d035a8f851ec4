"""Likelihood, scoring, sampling and next-token prediction with a trained model."""
