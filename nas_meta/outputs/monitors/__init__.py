"""What watches a search: TensorBoard, logs, hooks, Prometheus, W&B. None of them can end it."""
