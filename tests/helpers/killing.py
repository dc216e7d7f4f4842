"""Searches that are killed at random moments and resumed."""

import multiprocessing
import os
import random
import signal

from nas_meta import search

# A child of a server that already has everything imported starts at once, and can be killed early and late.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "nas_meta.controller",
        "nas_meta.execution.inline_engine",
        "search_spaces.pretrained.bert_subnet",
        "transformers.models.bert",
    ]
)


def run_search(document, directory):
    search(document, directory, inline=True, resume=True)


def results(run):
    """What must not depend on how often the search was killed."""
    return [(t.id, t.architecture_id, t.status, t.fidelity, t.metrics.get("accuracy")) for t in run.trials]


def killed(document, directory, seconds):
    """Runs or resumes a search in a child that is killed after so many seconds; whether it had ended by then."""
    child = CONTEXT.Process(target=run_search, args=(document, directory))
    child.start()
    child.join(seconds)
    over = child.exitcode is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not over or child.exitcode == 0
    return over


def killed_often(document, directory, times, seed=0):
    """Kills a search that many times at random moments, then lets it end."""
    rng, kills = random.Random(seed), 0
    while kills < times and not killed(document, directory, rng.uniform(0.05, 1.2)):
        kills += 1
    return kills, search(document, directory, inline=True, resume=True)
