"""Headswap: one frozen pass over your images, then swap heads as often as you like."""
