"""Invalid configs fail with one sentence: file, line, key, what was expected and the nearest valid name."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nas_meta.config.json_schema import schema
from nas_meta.config.resolved import read_config
from nas_meta.errors import ConfigError


def write(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("spaces:\n  name: bert-subnet\n", r"c.yaml:1: 'spaces' is not a section; did you mean 'space'"),
        ("seed: 1\ntasks:\n  wayz: 5\n", r"c.yaml:3: 'tasks.wayz' is not a known key; did you mean 'ways'"),
        (
            "learner:\n  name: maml\n  head: whitening\n",
            r"c.yaml:3: 'learner.head' is not a known key of maml, but one of .*protonet, ridge; leave it out",
        ),
        ("learner:\n  stepz: 5\n", r"c.yaml:2: 'learner.stepz' is not a known key; did you mean 'steps'"),
        (
            "learner:\n  name: protonett\n",
            r"c.yaml:2: .*'protonett' is not an installed learner; did you mean 'protonet'",
        ),
        ("budget:\n  trials: 0\n", r"c.yaml:2: budget.trials is 0; expected greater than or equal to 1"),
        ("learner:\n  lr: fast\n", r"c.yaml:2: learner.lr is 'fast'; expected a valid number"),
        (
            "tasks:\n  source: jsonl\n",
            r"c.yaml:1: tasks: expected either path, or all of train, valid and test",
        ),
        ("objectives:\n  - metric: parms\n", r"c.yaml:2: .*no trial measures 'parms'; did you mean 'params'"),
        ("objectives:\n  - {metrik: accuracy}\n", r"c.yaml:2: .*metri"),
        ("space: [1]\n", r"c.yaml:1: 'space' is \[1\]; expected keys such as 'name:'"),
        ("- 1\n", r"c.yaml: the config is a list; expected sections"),
        ("a: [\n", r"c.yaml:2: not YAML"),
        ("space:\n  name: nowhere.py:X\n", r"c.yaml:2: .*there is no file nowhere.py"),
    ],
)
def test_an_error_names_the_line(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_config(write(tmp_path, text))


def test_overrides_replace_values_and_are_validated(tmp_path):
    file = write(tmp_path, "learner:\n  steps: 5\n")
    resolved = read_config(file, ["learner.steps=7", "learner.lr=1e-4", "tasks.source=icd10"])
    assert resolved.options["learner"].steps == 7 and resolved.options["learner"].lr == 1e-4
    with pytest.raises(ConfigError, match=r"--set: learner.steps is -1"):
        read_config(file, ["learner.steps=-1"])
    with pytest.raises(ConfigError, match=r"^--set: 'lerner' is not a section; did you mean 'learner'\?"):
        read_config(file, ["lerner.steps=1"])
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        read_config(file, ["learner.steps"])


@pytest.mark.parametrize(
    "override, sentence",
    [
        ("budget=7", "budget is 7; expected keys such as hours, max_identical_failures, timeout_minutes"),
        ("pretraining=yes", "pretraining is True; expected keys such as batch, "),
        ("learner.training=fast", "learner.training is 'fast'; expected keys such as adversarial, "),
        (
            "learner.training.distill=[1]",
            "learner.training.distill is [1]; expected keys such as model, trained, weight",
        ),
    ],
)
def test_a_value_in_place_of_a_section_is_reported_with_its_keys(tmp_path, override, sentence):
    with pytest.raises(ConfigError) as raised:
        read_config(write(tmp_path, "seed: 1\n"), [override])
    assert sentence in str(raised.value)


def test_a_resolved_config_resolves_to_itself(tmp_path):
    first = read_config(write(tmp_path, "seed: 4\n"))
    second = read_config(write(tmp_path, first.as_yaml()))
    assert first.document == second.document and first.document["space"]["model"] == "starter:minilm"


def test_yaml_tags_do_not_execute(tmp_path):
    with pytest.raises(ConfigError, match="not plain YAML"):
        read_config(write(tmp_path, "seed: !!python/object/apply:os.system ['true']\n"))


def test_the_schema_has_the_options_of_every_plugin():
    text = yaml.safe_dump(schema())
    for option in ("max_layers", "adapt_steps", "population", "max_code_length", "gpus_per_trial"):
        assert option in text


def test_a_misspelt_key_exits_with_2_and_one_line(tmp_path):
    file = write(tmp_path, "tasks:\n  shotz: 1\n")
    program = "from nas_meta.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "search", str(file)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "did you mean 'shots'" in done.stderr


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_ready_config_is_valid(file):
    resolved = read_config(file)
    assert resolved.sections.budget.trials > 1


def test_a_missing_config_suggests_the_nearest_file(tmp_path):
    (tmp_path / "quickstart.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match=r"cannot be read: No such file.*; did you mean 'quickstart.yaml'\?"):
        read_config(tmp_path / "quickstrat.yaml")
