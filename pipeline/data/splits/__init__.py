"""Splits into train, validation and test; inner folds and hold-outs of the training images; nested subsets of them.

Contract: images with the same content or group are never in two parts, and everything follows from the seed.
"""
