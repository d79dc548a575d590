"""Use a finished run: predict new images, or export it as a file for other programs (`export/`).

Contract: an image gets the same prediction as in the pipeline, within the stated tolerance.
"""
