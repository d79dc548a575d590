"""Every sentence of the verdict: the answer, the factors behind it, and notes on runs and data.

Contract: numbers in, sentences out; no file is read here and nothing is computed that a number depends on.
"""
