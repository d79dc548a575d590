"""The two memories of embeddings: the cache of all rows ever computed, and the matrix that DVC tracks.

Contract: the only room that imports h5py; bytes are hashed before they are parsed.
"""
