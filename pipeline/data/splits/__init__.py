"""Which images train, validate and test; inner folds and hold-outs of the training images; nested parts of them.

Contract: images of one content or group never straddle two parts, and everything follows from the seed.
"""
