"""Where trials run. Moves a picklable payload to a worker and results back; knows nothing of torch or tasks."""
