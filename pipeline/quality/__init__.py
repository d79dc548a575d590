"""Checks of the images: duplicates, wrong labels, outliers, blanks and leaks across splits.

Contract: a check is one function in `checks.CHECKS`; nothing is excluded until a person decides.
"""
