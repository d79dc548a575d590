"""A finished run on new images, and as a file for other programs (`export/`).

Contract: what is said of an image equals what the pipeline said of it, within the stated tolerance.
"""
