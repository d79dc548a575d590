"""What a killed run leaves in the repository, and mending it.

Contract: nothing that was computed is lost, and whatever is still running is left alone.
"""
