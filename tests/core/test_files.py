"""What is said about files and folders that do not exist."""

import pytest

from nas_meta import load_classifier, load_run
from nas_meta.config.resolved import read_config
from nas_meta.config.starting_config import starting_config
from nas_meta.core.files import similar_sibling
from nas_meta.errors import ConfigError, DataError, RunError
from nas_meta.outputs.classifier.files import read_texts
from nas_meta.tasks.corpus.corpus import open_corpus


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda path: starting_config([path]), DataError),
        (lambda path: read_texts(path, "text"), DataError),
        (lambda path: open_corpus([path]), DataError),
        (load_classifier, ConfigError),
        (load_run, RunError),
    ],
)
def test_a_misspelt_file_is_answered_with_the_one_that_exists(tmp_path, use, error):
    (tmp_path / "intents.csv").write_text("text,label\n")
    with pytest.raises(error) as raised:
        use(tmp_path / "intent.csv")
    assert str(raised.value).endswith(f"; did you mean '{tmp_path / 'intents.csv'}'?")


def test_only_what_does_not_exist_is_answered_with_a_similar_name(tmp_path):
    (tmp_path / "intents.csv").touch()
    (tmp_path / "intent.csv").touch()
    for name in ("intents.csv", "other.bin", "folder/intents.csv", "a\0b"):
        assert similar_sibling(tmp_path / name) == ""


def test_a_folder_of_runs_is_answered_with_the_latest_run_in_it(tmp_path):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "journal.sqlite").touch()
    with pytest.raises(RunError, match=r"is a folder of runs; expected one of them, such as '.*/runs/first'"):
        load_run(tmp_path / "runs")
    with pytest.raises(RunError, match="is a file; expected a run directory"):
        load_run(tmp_path / "runs" / "first" / "journal.sqlite")


def test_a_file_of_data_in_place_of_a_config_is_answered_with_the_command_for_it(tmp_path):
    file = tmp_path / "intents.csv"
    file.write_text("text,label\n")
    with pytest.raises(ConfigError, match=r"is a file of data, not a config; .*: nas-meta init .*/intents.csv"):
        read_config(file)
