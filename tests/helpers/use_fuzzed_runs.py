"""Opens, lists, resumes and exports mutated run directories, one after the other, and prints what is wrong.

Run as ``python use_fuzzed_runs.py TEMPLATES WORK FIRST LAST``: ``TEMPLATES`` is a JSON file of directories by name, and
``FIRST`` to ``LAST`` are the seeds. Prints one JSON object for each case with a fault, and ``done``.
"""

import contextlib
import faulthandler
import hashlib
import json
import os
import random
import resource
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

from fuzzed_runs import mutated

from nas_meta import load_run
from nas_meta.cli import main as cli
from nas_meta.errors import NasMetaError
from nas_meta.journal.status import read_status

SECONDS = 100  # of one case, after which the process ends with a traceback of all threads
MEMORY = 2**30
PROPERTIES = (
    "trials", "best", "report", "objectives", "pareto", "steps", "rung_reports", "findings", "config", "cpus", "count",
    "supernet", "damage", "protocol",
)  # fmt: skip


def snapshot(folder):
    """Return kind, mode, size and content of everything in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
        found[str(path.relative_to(folder))] = (
            status.st_mode,
            status.st_size,
            status.st_mtime_ns * bool(content),
            content,
        )
    return found


@contextlib.contextmanager
def captured():
    """Send everything that this process prints, also from native code, to a file."""
    sys.stdout.flush(), sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        texts = []
        try:
            yield texts
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os.dup2(kept[0], 1), os.dup2(kept[1], 2)
            os.close(kept[0]), os.close(kept[1])
            for file in (out, err):
                file.seek(0)
                texts.append(file.read(10**6).decode(errors="replace"))


def command(*arguments):
    """Run the command line in this process; return what is wrong with how it ended."""
    sys.argv, code = ["nas-meta", *map(str, arguments)], 0
    with captured() as texts:
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            return f"raised {error!r}"
    error = texts[1]
    if code not in (0, 1, 2) or any(
        word in error for word in ("Traceback", "unexpected error", "panicked", "Exception ignored")
    ):
        return f"exit {code}: {error[-700:]}"
    if code and not error.splitlines()[-1].startswith("nas-meta: "):
        return f"exit {code} without a sentence: {error[-700:]}"
    if any(not c.isprintable() and c not in "\n\t" for c in error):
        return f"control characters: {error!r}"
    return None


def opened(run):
    """Read everything of a run from Python; return what was raised besides a NasMetaError."""
    faults = []
    for name in (*PROPERTIES, "weights", "status"):
        try:
            with captured():
                loaded = load_run(run)
                if name == "weights":
                    loaded.weights_of(loaded.best)
                elif name == "status":
                    read_status(loaded)
                else:
                    getattr(loaded, name)
        except NasMetaError:
            continue
        except BaseException as error:
            faults.append(f"Run.{name} raised {error!r}")
    return faults


def used(run, work):
    """Use a mutated run in every way; return the faults."""
    faults = opened(run)
    for arguments in (
        ["status", run], ["best", run], ["trials", run], ["trial", run, 1], ["logs", run, 1], ["logs", run, "supernet"],
        ["trials", run, "--sort", "accuracy", "--json"], ["explain", run],
        ["report", run, "--to", work / "report.html"],
        ["export", run, "--to", work / "exported"],
        ["resume", run, "--inline", "--set", "budget.trials=3", "--set", "budget.timeout_minutes=0.1"],
        ["best", run, "--json"],
    ):  # fmt: skip
        shutil.rmtree(work / "exported", ignore_errors=True)
        if fault := command(*arguments):
            faults.append(f"{arguments[0]}: {fault}")
    return faults


def case(seed, templates, work):
    """Mutate a copy of a run, use it, and return what was changed and what is wrong."""
    name = random.Random(f"{seed} template").choice(sorted(templates))
    folder, outside = work / "case", work / "case" / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "mine.txt").write_text("dear to me")
    shutil.copytree(templates["done-supernet"], outside / "mine")
    for file in ("journal.sqlite", "supernet.safetensors"):
        shutil.copy(templates["done-supernet"] / file, outside)
    (folder / "here").mkdir()
    os.chdir(folder / "here")
    run = folder / "run"
    shutil.copytree(templates[name], run)
    what = mutated(run, seed, outside)
    before = {at: snapshot(at) for at in (outside, folder / "here")}
    children = sorted(os.listdir(folder))
    faults = used(run, work)
    for at, files in before.items():
        if snapshot(at) != files:
            faults.append(f"{at} was changed")
    if sorted(os.listdir(folder)) != children:
        faults.append(f"beside the run: {sorted(os.listdir(folder))}")
    os.chdir(work)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)
    return {"seed": seed, "template": name, "what": what, "faults": faults}


def main(templates, work, first, last):
    templates = {name: Path(path) for name, path in json.loads(Path(templates).read_text()).items()}
    work = Path(work)
    warm_up = work / "warm-up"
    shutil.copytree(templates["done-supernet"], warm_up)
    for part in (["export", warm_up, "--to", work / "exported"], ["best", warm_up]):
        assert command(*part) is None, command(*part)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    errors = os.fdopen(os.dup(2), "w")  # while standard error is captured
    for seed in range(int(first), int(last)):
        print(f"case {seed}", file=errors, flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=errors)
        began = time.monotonic()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = case(seed, templates, work)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if after > MEMORY // 1024 and after > peak:
            result["faults"].append(f"{after // 1024} MB of memory")
        if result["faults"] or os.environ.get("VERBOSE"):
            print(json.dumps(result | {"seconds": round(time.monotonic() - began, 1)}), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print("done", after // 1024, "MB", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
