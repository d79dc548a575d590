"""Verify the chain: every byte, every value of dvc.lock, every row, and what should not be there."""
