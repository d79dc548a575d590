"""Backbone, head and calibration as one ONNX file, with a model card.

Contract: a file is written only after its answers on training images agreed with the pipeline's.
"""
