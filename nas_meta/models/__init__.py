"""What runs on a device: encoder, pooling, packing, adapters, precision, state as bytes, profiling."""
