"""Backbone, head and calibration as one ONNX file, with a model card.

Contract: a file is written only if its predictions of training images agree with the pipeline's.
"""
