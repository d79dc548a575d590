"""The two memories of the frozen pass: the cache of rows, and the aligned matrix. Only hdf5.py imports h5py."""
