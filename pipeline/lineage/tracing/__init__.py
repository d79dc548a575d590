"""Follow the chain from one thing in both directions."""
