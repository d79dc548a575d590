"""Predictions and what they are worth: metrics, decisions, intervals, paired tests, label curves, maps of embeddings.

Contract: arrays in, numbers out; only `runs`, `curves` and `surveys` read and write files.
"""
