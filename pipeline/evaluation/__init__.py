"""Predictions and their evaluation: metrics, decisions, intervals, paired tests, label curves, maps of embeddings.

Contract: arrays in, numbers out; only `runs`, `curves`, `surveys` and `scoring` read and write files.
"""
