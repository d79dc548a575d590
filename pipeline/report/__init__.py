"""The report: an ordered list of sections, each a function from the Evidence, in one self-contained page.

To add a section: one decorated function in `sections.py`.
"""
