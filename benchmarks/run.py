"""Runs benchmarks and writes their tables into ``benchmarks/README.md``; without a name, runs all of them.

usage: python -m benchmarks.run [NAME]...

A benchmark on data that no package has reads their folders from environment variables, its ``VARIABLES``.
"""

from __future__ import annotations

import os
import sys

from benchmarks import (
    adaptation,
    bert_table,
    bytes_per_node,
    class_names,
    clinc150,
    ensemble_distillation,
    final_training,
    heads,
    importance,
    inheritance,
    inner_loops,
    learners,
    many_workers,
    nas_bench_macro,
    one_shot,
    overhead,
    own_csv,
    planted_optimum,
    precision,
    prefilter,
    pretraining,
    pretraining_speed,
    quickstart,
    recipe,
    scaling_table,
    scratch_recipe,
    sinusoid,
    soak,
    startup,
    stopping,
    supernet,
    supernet_contest,
    trained_table,
    trial_cost,
    user_tasks,
    worker_utilisation,
    zero_cost,
)
from benchmarks.table import machine, publish

MODULES = (
    quickstart, own_csv, startup, overhead, worker_utilisation, many_workers, soak, bytes_per_node, trial_cost,
    precision, nas_bench_macro, bert_table, scaling_table, trained_table, stopping, planted_optimum, one_shot, supernet,
    supernet_contest,
    inner_loops, sinusoid, class_names, recipe, scratch_recipe, learners, heads, pretraining,
    inheritance, adaptation, pretraining_speed, zero_cost, prefilter, importance, user_tasks,
    final_training,
    clinc150, ensemble_distillation,
)  # fmt: skip
BENCHMARKS = {module.__name__.rpartition(".")[2]: module for module in MODULES}


def main(names: list[str]) -> int:
    """Runs the named benchmarks in order.

    Args:
        names: module names of benchmarks; empty for all.

    Returns:
        The exit code: 0 on success, 2 for an unknown name, or for a named benchmark without its data.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.stderr.write(f"unknown benchmark '{unknown[0]}'; expected one of: {', '.join(BENCHMARKS)}\n")
        return 2
    print(machine())
    for name in names or BENCHMARKS:
        missing = [variable for variable in getattr(BENCHMARKS[name], "VARIABLES", ()) if variable not in os.environ]
        if missing:
            sys.stderr.write(f"{name} was left out: set {' and '.join(missing)} to the folders of these data sets\n")
            if names:
                return 2
            continue
        table = BENCHMARKS[name].measure()
        publish(name, table)
        print(f"\n{name}\n{table.markdown()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
