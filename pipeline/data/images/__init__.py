"""From an image file's bytes to pixels, the same for every stage; and the small pictures of the report.

Contract: a file is decoded in one defined way or refused with BadImageError; docs/images.md is the table.
"""
