"""Plans: train the last blocks of a network, or all, on the manifest's images, and predict as a head would.

Contract: the end is the same Predictions as of heads, and an interrupted training goes on to the same bytes.
"""
