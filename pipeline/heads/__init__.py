"""Heads: their catalogue, preprocessing, hyper-parameter search, calibration, and files that hold no code."""

from pipeline.heads import catalogue  # noqa: F401  # fills HEADS
from pipeline.heads.entries import check, streams
from pipeline.heads.fitting import fit
from pipeline.heads.predicting import PREDICTION_TOLERANCE, predict
from pipeline.heads.registry import HEADS
from pipeline.heads.rows import Rows
from pipeline.heads.saving import load, save

__all__ = ["HEADS", "PREDICTION_TOLERANCE", "Rows", "check", "fit", "load", "predict", "save", "streams"]
