"""Show what a number, a file or an image comes from, and what came of it."""
