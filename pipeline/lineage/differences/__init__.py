"""Say what changed between two revisions, and which results moved because of it."""
