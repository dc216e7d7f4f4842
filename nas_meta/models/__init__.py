"""Models on a device: encoder, pooling, packing, adapters, precision, serialisation and profiling."""
