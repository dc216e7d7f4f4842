"""The calibration of a trial is fitted once and kept in the run directory, for as long as it is that of the trial."""

import json
import shutil

import pytest
from installed import marked

import nas_meta
from nas_meta.errors import ConfigError
from nas_meta.outputs.classifier.stored_calibration import FOLDER
from nas_meta.tasks.sources.files import FileSource


@pytest.fixture(scope="module")
def searched(tiny_model, labelled_texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration")
    shutil.copy(labelled_texts, folder / "data.jsonl")
    config = {
        "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0], "ffn": [1.0], "min_layers": 2},
        "tasks": {"source": "jsonl", "path": str(folder / "data.jsonl"), "ways": 2, "shots": 2, "queries": 3},
        "learner": {"name": "protonet", "head": "none", "steps": 1},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 2, "test_episodes": 2, "compare": False, "check_models": False},
        "latency": {"seconds": 0.02},
        "watching": {"report": False},
        "budget": {"trials": 1},
    }
    run = nas_meta.search(config, folder / "run", inline=True)
    assert not (run.directory / "report.html").exists()
    return folder


@pytest.fixture
def run(searched, tmp_path):
    """A copy of the run, with data of its own that can be taken away."""
    shutil.copytree(searched / "run", tmp_path / "run")
    yield tmp_path / "run"
    if (searched / "away.jsonl").exists():
        (searched / "away.jsonl").rename(searched / "data.jsonl")


@pytest.fixture(scope="module")
def named(searched):
    """A run in which the names of classes are support examples."""
    config = nas_meta.load_run(searched / "run").config.given
    config |= {"tasks": config["tasks"] | {"class_names": True, "shots": 1}}
    return nas_meta.search(config, searched / "named", inline=True).directory


def calibration(run):
    return nas_meta.load_classifier(run).parts.calibration


@pytest.mark.slow
def test_the_second_load_needs_no_data(run, searched):
    first = calibration(run)
    assert first is not None and (run / FOLDER / "1.json").is_file()
    (searched / "data.jsonl").rename(searched / "away.jsonl")
    assert calibration(run) == first


@pytest.mark.parametrize("damage", marked(["weights", "file"], ["weights"]))
def test_a_calibration_of_other_weights_or_a_damaged_one_is_not_used(run, searched, damage, caplog):
    calibration(run)
    file = run / FOLDER / "1.json"
    if damage == "file":
        file.write_text("{")
    else:
        document = json.loads(file.read_text())
        file.write_text(json.dumps(document | {"learner": "that of other weights"}))
    before = file.read_text()
    assert calibration(run) is not None and file.read_text() != before  # fitted and kept again
    from safetensors.numpy import load_file, save_file

    weights = load_file(run / "weights" / "1.safetensors")
    save_file({name: 0.5 * value for name, value in weights.items()}, run / "weights" / "1.safetensors")
    (searched / "data.jsonl").rename(searched / "away.jsonl")
    assert calibration(run) is None and "probabilities are not calibrated" in caplog.text


def test_a_calibration_on_other_data_than_those_of_the_search_is_not_kept(run, searched):
    lines = (searched / "data.jsonl").read_text().splitlines()
    (searched / "data.jsonl").rename(searched / "away.jsonl")
    (searched / "data.jsonl").write_text("\n".join(lines[:-1]))
    assert calibration(run) is not None and not (run / FOLDER).exists()


def test_a_link_out_of_the_run_is_not_written_through(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run / FOLDER).symlink_to(tmp_path / "elsewhere")
    assert calibration(run) is not None and not list((tmp_path / "elsewhere").iterdir())


def test_a_calibration_with_other_words_for_the_classes_is_not_kept(named, tmp_path, monkeypatch):
    run = shutil.copytree(named, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "spoken", lambda self, name: f"another word for {name}")
        other = calibration(run)
        assert other is not None and not (run / FOLDER).exists()
        with pytest.raises(ConfigError, match="'jsonl' has other words for its classes than those that the run began"):
            nas_meta.resume(run, ["budget.trials=2"], inline=True)
    assert calibration(run) != other and (run / FOLDER / "1.json").is_file()
