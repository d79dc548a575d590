"""Say what changed between two commits, and which results moved for what reason."""
