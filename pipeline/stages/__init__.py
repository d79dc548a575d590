"""A file for each stage of dvc.yaml; `main` is its recipe, and returns the line that ends it."""
