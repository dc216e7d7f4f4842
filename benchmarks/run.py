"""Runs the benchmarks and puts their tables into ``benchmarks/README.md``.

usage: python -m benchmarks.run [NAME]...
"""

from __future__ import annotations

import sys

from benchmarks import (
    adaptation,
    bert_table,
    bytes_per_node,
    distillation,
    importance,
    inheritance,
    inner_loops,
    learners,
    many_workers,
    nas_bench_macro,
    one_shot,
    overhead,
    planted_optimum,
    prefilter,
    pretraining,
    pretraining_speed,
    sinusoid,
    soak,
    startup,
    stopping,
    supernet,
    trial_cost,
    truncation,
    worker_utilisation,
    zero_cost,
)
from benchmarks.table import machine, publish

MODULES = (
    startup, overhead, worker_utilisation, many_workers, soak, bytes_per_node, trial_cost, truncation, nas_bench_macro,
    bert_table, stopping, planted_optimum, one_shot, supernet, inner_loops, sinusoid, distillation, learners,
    pretraining, inheritance, adaptation, pretraining_speed, zero_cost, prefilter, importance,
)  # fmt: skip
BENCHMARKS = {module.__name__.rpartition(".")[2]: module for module in MODULES}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.stderr.write(f"there is no benchmark '{unknown[0]}'; known are: {', '.join(BENCHMARKS)}\n")
        return 2
    print(machine())
    for name in names or BENCHMARKS:
        table = BENCHMARKS[name].measure()
        publish(name, table)
        print(f"\n{name}\n{table.markdown()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
