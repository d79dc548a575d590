"""Predictions and the metrics that score them: what choices of heads and plans are made by.

Contract: heads and plans end in the same Predictions file; a metric is one entry in `metrics.METRICS`.
"""
