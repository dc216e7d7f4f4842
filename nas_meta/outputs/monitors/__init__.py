"""What watches a search live: TensorBoard, logs, hooks, Prometheus, W&B. None of them can end it."""
