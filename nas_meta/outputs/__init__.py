"""What users see of a search: monitors while it runs, reports of its results, and exported models."""
