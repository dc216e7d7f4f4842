"""When a trial is not worth training to its end: one stopping rule per file, each a function of reports at rungs.

Rules work with every strategy, with one objective or several.
"""
