"""Every number that nas-meta claims, as a command: ``make bench``, or ``python -m benchmarks.run NAME``."""
