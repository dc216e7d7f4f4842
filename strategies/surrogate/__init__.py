"""A predictor learned from the trials so far, which proposes the next one."""
