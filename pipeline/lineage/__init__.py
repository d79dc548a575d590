"""What every number comes from: the recorded chain, its audit, tracing one thing, comparing two commits.

Contract: nothing here changes a result; an altered byte anywhere along the chain is a Mismatch.
"""
