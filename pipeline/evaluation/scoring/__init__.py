"""Predictions and the metrics that score them, by which heads and plans are chosen.

Contract: heads and plans end in the same Predictions file; a metric is one entry in `metrics.METRICS`.
"""
