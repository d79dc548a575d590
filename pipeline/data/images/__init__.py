"""From an image file's bytes to pixels, the same for every stage; and the report's thumbnails.

Contract: a file is decoded in one defined way or refused with BadImageError; docs/images.md lists both.
"""
