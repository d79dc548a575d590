"""A file for each verb of `headswap` that is no stage: HELP, `arguments` and `main`, as a stage's file has them."""
