"""A file for each verb of `headswap` that is no stage."""
