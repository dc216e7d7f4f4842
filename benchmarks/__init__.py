"""Commands that measure every number nas-meta claims: ``make bench``, or ``python -m benchmarks.run NAME`` for one."""
