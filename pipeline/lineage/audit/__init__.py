"""Read every byte from images to verdict, and name what was altered: one function per check, yielding Mismatches."""
