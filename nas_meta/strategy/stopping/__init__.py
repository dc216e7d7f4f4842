"""When a trial is not worth training to its end: one rule a file, each a function of what trials report at rungs.

Independent of the strategy, with one objective or several.
"""
