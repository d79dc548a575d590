"""Headswap: one frozen pass over your images, then swap heads; images -> manifest -> embeddings -> head -> verdict.

Read `stages/` first, a file for each stage of dvc.yaml; README.md tells what it is for, CONTRIBUTING.md the rooms.
"""
