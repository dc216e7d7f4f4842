"""What is uploaded: a wheel that is built from the source distribution runs outside of the repository."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from environments import light_venv

ROOT = Path(__file__).parents[2]


def run(*command, cwd):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The program of an environment that has the built wheel, and a folder outside of the repository."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("packaging")
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if tracked.returncode:
        pytest.skip("not a git checkout, so which files belong to the project is not known")
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    # Without --wheel and --sdist, the wheel is built from the source distribution.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    python = light_venv(folder / "venv")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel, cwd=folder)
    work = folder / "work"
    work.mkdir()
    where = run(python, "-c", "import nas_meta, search_spaces, strategies; print(strategies.__file__)", cwd=work)
    assert str(folder / "venv") in where, "the wheel, not the repository, is imported"
    return python.parent / "nas-meta", work


@pytest.mark.slow
def test_a_search_runs_from_the_wheel_to_a_classifier(installed, small_config, labelled_texts):
    program, work = installed
    assert run(program, "--version", cwd=work).strip().startswith("nas-meta 0.")
    assert {"bert-subnet", "vit"} <= {row["name"] for row in json.loads(run(program, "spaces", "--json", cwd=work))}
    (work / "config.yaml").write_text(yaml.safe_dump(small_config | {"budget": {"trials": 2}}))
    run(program, "search", "config.yaml", "--run-dir", "run", cwd=work)
    run(program, "export", "run", "--to", "model", cwd=work)
    rows = [json.loads(line) for line in labelled_texts.read_text().splitlines()]
    support = [row for row in rows if row["label"] in ("class0", "class1")]
    (work / "support.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in support))
    command = ("classify", "model", "--support", "support.jsonl", support[0]["text"], "--json")
    (answer,) = json.loads(run(program, *command, cwd=work))
    assert answer["label"] in ("class0", "class1")


@pytest.mark.slow
def test_a_search_space_is_begun_and_checked_with_the_wheel_alone(installed):
    program, work = installed
    run(program, "space", "new", "TinyEncoder", cwd=work)
    run(program, "space", "check", "tiny_encoder.py:TinyEncoder", cwd=work)
