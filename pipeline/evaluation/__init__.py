"""Predictions, metrics, decisions, and the comparison of runs."""
