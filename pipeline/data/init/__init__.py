"""`headswap init`: from a stranger's folder, table or archive to params.yaml.

Contract: it only reads the images, says what it found, and writes params.yaml at the end, as a whole.
"""
