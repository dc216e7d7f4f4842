"""Live monitors of a search: TensorBoard, logs, hooks, Prometheus and W&B. A failing monitor never ends the search."""
