"""Heads: a catalogue, preprocessing as a part of them, choice of hyper-parameters, calibration, and safe files."""

from pipeline.heads import catalogue  # noqa: F401  # its factories enter HEADS
from pipeline.heads.entries import check, streams
from pipeline.heads.fitting import fit
from pipeline.heads.predicting import SAME, predict
from pipeline.heads.registry import HEADS
from pipeline.heads.rows import Rows
from pipeline.heads.saving import load, save

__all__ = ["HEADS", "SAME", "Rows", "check", "fit", "load", "predict", "save", "streams"]
