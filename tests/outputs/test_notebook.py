"""A search in a notebook: its progress is one output that is updated, and its results show as HTML."""

import re
import time

import pytest

from nas_meta.core.objectives import Objective
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.status import Status
from nas_meta.outputs.report.notebook import as_html, in_notebook


def status(tmp_path, phase, **more):
    rows = [
        Trial(1, {"a": "<b>"}, 0, 10, "completed", {"accuracy": 0.5}, started=1.0, finished=2.0),
        Trial(2, {"a": 1}, 0, 10, "running", {}, started=2.0),
    ]
    board = Leaderboard.of(rows, [Objective("accuracy")])
    return Status(phase, board, 4, time.time(), {2: 3}, tmp_path, losses={2: 0.5}, **more)


def test_progress_is_html_with_a_bar_the_best_and_running_trials(tmp_path):
    shown = as_html(status(tmp_path, "searching"))
    assert '<progress value="1" max="4"' in shown and "<b>searching</b>" in shown
    assert "trial 2: step 3/10, loss 0.500" in shown and "best so far: trial 1" in shown
    over = as_html(status(tmp_path, "failed", error="no <trial> worked"))
    assert "no &lt;trial&gt; worked" in over and "trial 2: step" not in over
    assert "<progress style" in as_html(status(tmp_path, "training the supernet"))  # of unknown length


def test_a_test_is_no_notebook():
    assert not in_notebook()


@pytest.mark.slow
def test_a_notebook_searches_and_shows_its_results(tiny_model, labelled_texts, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs the extra notebook")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra notebook")
    pytest.importorskip("ipykernel", reason="needs the extra notebook")
    cells = [
        f"""import json
import nas_meta
rows = [json.loads(line) for line in open({str(labelled_texts)!r})]
config = {{
    "space": {{"name": "bert-subnet", "model": {str(tiny_model)!r}}},
    "tasks": {{"ways": 2, "shots": 2, "queries": 3}},
    "learner": {{"head": "none", "steps": 1}},
    "strategy": {{"name": "random"}},
    "evaluation": {{"episodes": 2, "test_episodes": 2, "compare": False, "check_models": False}},
    "latency": {{"seconds": 0.02}},
    "budget": {{"trials": 2}},
}}
run = nas_meta.search(config, "run", inline=True, progress=True, data=rows)""",
        "run.best",
        "run.plot.history()",
        "texts, labels = [row['text'] for row in rows], [row['label'] for row in rows]\n"
        "run.classifier().fit(texts, labels).predict(texts[:1])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [cell.outputs for cell in notebook.cells]
    shown = [output for output in outputs[0] if output.output_type == "display_data"]
    assert len(shown) == 1, "one output that is updated"
    final = shown[0].data["text/html"]
    assert "<b>done</b>" in final and "2/2 done" in final and "best so far: trial" in final
    assert "widget-view" not in str(outputs[0])  # tqdm and Ray may warn that ipywidgets is missing: nothing needs it
    assert "<table" in outputs[1][-1].data["text/html"] and "accuracy" in outputs[1][-1].data["text/html"]
    assert any("image/png" in output.get("data", {}) for output in outputs[2])
    assert re.search(r"'class\d+'", outputs[3][-1].data["text/plain"])  # trained for a step, it may be wrong
