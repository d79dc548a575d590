"""A file for each stage of dvc.yaml; `main` is its recipe, and returns the line that ends it.

HELP and `arguments` stand beside it; `arguments` uses its parser and pipeline.core.options alone, so that help need not
import the rest of the module.
"""
