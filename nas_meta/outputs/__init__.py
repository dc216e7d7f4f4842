"""Who sees the result: monitors while a search runs, reports, exported models."""
