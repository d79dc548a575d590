"""One module per user verb that is no stage; each a main(params) -> summary line."""
