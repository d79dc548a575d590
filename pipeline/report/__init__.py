"""The report: one self-contained page, made of an ordered list of sections, each a function of the Evidence.

To add a section: write one decorated function in `sections.py`.
"""
