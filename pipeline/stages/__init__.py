"""One module per DVC stage, under the stage's name; each a thin main(params) -> summary line."""
