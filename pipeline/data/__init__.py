"""From a data set's images to the Manifest: a row per image with its hash, label, group and split.

Contract: `manifest.write` is the only writer of data/manifest.parquet, and paths stay inside the data folder.
"""
