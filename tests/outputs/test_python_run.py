"""What Python users make of a run: figures, a data frame, a short text of a trial, a classifier, an export."""

import builtins
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import nas_meta
from nas_meta.errors import ConfigError, RunError
from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.row_checks import REQUIRED
from nas_meta.journal.run import Run as RecordedRun

FINISHED = Path(__file__).parents[1] / "compat" / "runs" / "finished"


@pytest.fixture
def run(tmp_path):
    """A finished run, with rung reports of a stopping rule."""
    shutil.copytree(FINISHED, tmp_path / "run")
    return nas_meta.load_run(tmp_path / "run")


@pytest.fixture
def empty(tmp_path):
    """A run without trials."""
    config = {"objectives": [{"metric": "accuracy", "direction": "maximize"}]}
    (tmp_path / "empty").mkdir()
    Journal.create(tmp_path / "empty", config=config).close()
    return nas_meta.load_run(tmp_path / "empty")


@pytest.fixture
def planted(tmp_path):
    """A run of three trials: the first choice is the same in all, the second only applies to some."""
    config = {"objectives": [{"metric": "accuracy", "direction": "maximize"}]}
    (tmp_path / "planted").mkdir()
    journal = Journal.create(tmp_path / "planted", config=config)
    for number, accuracy, more in ((1, 0.7, {}), (2, 0.9, {"heads": 4}), (3, 0.5, {"heads": 2})):
        architecture = {"width": 8, "keep": bool(more), **more}
        metrics = {**dict.fromkeys(REQUIRED, 0.0), "accuracy": accuracy}
        journal.write(Trial(number, architecture, 0, 5, "completed", metrics, None, 1.0, 2.0, 5))
    journal.close()
    return nas_meta.load_run(tmp_path / "planted")


@pytest.fixture(autouse=True)
def closed_figures():
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    yield
    plt.close("all")


def test_a_run_of_the_api_is_a_run_of_the_journal(run):
    assert isinstance(run, RecordedRun) and isinstance(run, nas_meta.Run)
    assert run.best.id == RecordedRun(run.directory).best.id


def test_the_history_shows_every_completed_trial_and_the_best_so_far(run):
    axes = run.plot.history()
    points, steps = axes.get_lines()
    done = [trial for trial in run.trials if trial.status == "completed"]
    assert list(points.get_xdata()) == [trial.id for trial in done]
    assert list(points.get_ydata()) == pytest.approx([100 * trial.metrics["accuracy"] for trial in done])
    assert steps.get_ydata()[-1] == pytest.approx(100 * run.best.metrics["accuracy"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", "accuracy, %")


def test_figures_draw_into_given_axes(run):
    import matplotlib.pyplot as plt

    _, axes = plt.subplots()
    assert run.plot.pareto(axes) is axes and "Pareto front" in [t.get_text() for t in axes.get_legend().get_texts()]
    assert run.plot.history(ax=axes) is axes and len(plt.get_fignums()) == 1


def test_parallel_coordinates_have_a_line_per_trial_and_a_tick_per_choice_that_differs(planted):
    axes = planted.plot.parallel_coordinates()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["keep", "heads", "accuracy"]
    lines = sorted((list(line.get_ydata()) for line in axes.get_lines()), key=lambda line: line[-1])
    assert lines == [[1, 0, 0], [0, pytest.approx(-0.15), pytest.approx(0.5)], [1, 1, 1]]
    assert {"True", "False", "2", "4", "–"} == {text.get_text() for text in axes.texts}


def test_learning_curves_have_a_line_per_trial_at_a_rung(run):
    axes = run.plot.learning_curves()
    reported = {report.trial: 100 * report.values[0] for report, _ in run.rung_reports[::-1]}
    assert sorted(line.get_ydata()[0] for line in axes.get_lines()) == pytest.approx(sorted(reported.values()))
    assert len(reported) > 1


@pytest.mark.parametrize("name", ["history", "pareto", "parallel_coordinates", "learning_curves"])
def test_a_run_without_trials_has_no_figures(empty, name):
    with pytest.raises(RunError, match=r"empty has no (completed trial yet|learning curves)"):
        getattr(empty.plot, name)()


def test_the_data_frame_has_a_row_per_trial(run):
    pandas = pytest.importorskip("pandas")
    frame = run.trials_dataframe()
    assert isinstance(frame, pandas.DataFrame) and frame["id"].tolist() == [trial.id for trial in run.trials]
    assert frame["accuracy"].max() >= run.best.metrics["accuracy"]
    assert frame["architecture.layer0.keep"].tolist() == [t.architecture["layer0.keep"] for t in run.trials]
    assert frame.set_index("id").loc[run.best.id, "params"] == run.best.metrics["params"]


def test_a_missing_pandas_is_one_sentence(run, monkeypatch):
    real = builtins.__import__

    def without_pandas(name, *arguments, **named):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ConfigError, match="needs pandas; expected pip install pandas"):
        run.trials_dataframe()


def test_a_trial_is_short_in_a_prompt_and_a_table_in_a_notebook(run):
    assert re.fullmatch(
        rf"Trial\({run.best.id}, completed, accuracy [\d.]+ ± [\d.]+ %, parameters [\d.]+ M, MFLOPs [\d.]+\)",
        repr(run.best),
    )
    hostile = Trial(1, {"a": "<script>alert(1)</script>"}, 0, 0, "failed", error="<b>no</b>\x1b[31m")
    assert repr(hostile) == "Trial(1, failed)"
    html = hostile._repr_html_()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(html)
    assert set(tags) == {"table", "caption", "tr", "th", "td"} and "\x1b" not in html
    assert "&lt;script&gt;" in html and tags.count("tr") == 3


def test_a_run_is_short_in_a_prompt_and_its_best_trials_in_a_notebook(run, tmp_path):
    line = repr(run)
    assert line == f"Run({str(run.directory)!r}, {len(run.trials)} trials, best: {run.best!r})"
    html = run._repr_html_()
    completed = sum(trial.status == "completed" for trial in run.trials)
    assert html.count("<tr>") == 1 + min(10, completed) and f"<td>{run.best.id}</td>" in html
    assert html.startswith("<p>") == bool(run.verdict)
    gone = nas_meta.Run(tmp_path / "<b>gone")
    assert repr(gone) == f"Run({str(tmp_path / '<b>gone')!r})" and "<b>" not in gone._repr_html_()


def test_a_run_gives_a_classifier_an_export_and_a_report(small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_config |= {"strategy": {"name": "random"}, "budget": {"trials": 1}}
    small_config["evaluation"] |= {"check_models": False}
    run = nas_meta.search(small_config, "run", inline=True)
    assert isinstance(run, nas_meta.Run)
    classifier = run.classifier(batch_size=8).fit(["a lost card", "a late parcel"], ["card", "parcel"])
    assert classifier.predict(["a lost card"]).tolist() == ["card"]
    folder = run.export("model", run.best.id)
    assert (folder / "model.safetensors").is_file()
    report = run.write_report("report.html", currency="EUR")
    assert report.read_text().startswith("<!DOCTYPE html>") and "EUR" in report.read_text()
    with pytest.raises(RunError, match="has no trial 7"):
        run.classifier(7)
