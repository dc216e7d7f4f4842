"""Ensembles of the trials whose weights a run keeps: scored, judged against single trials, and written."""
