"""The chain from image bytes to the verdict: tie it together, verify it, follow it, export it."""
