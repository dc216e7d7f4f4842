"""Secrets of a config reach the hook or cluster that needs them, and no file."""

import stat
import sys
from pathlib import Path

import pytest

from nas_meta import load_run, search
from nas_meta.config.environment import concealed, expanded, expanded_command, shareable
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.outputs.export.folder import export
from nas_meta.outputs.monitors.hooks import load_hook

SECRET = "s3cret-of-mine"
HOOK = "import sys, json; event = json.load(sys.stdin); open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')"
FAILING = "import sys; print('cannot log in with', sys.argv[1]); sys.exit(3)"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_reaches_the_hook_and_no_file(small_config, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    hook = [sys.executable, "-c", HOOK, str(tmp_path / "called"), "Bearer ${MY_TOKEN}"]
    watching = {"on_search_end": hook, "on_trial_end": [sys.executable, "-c", FAILING, "${MY_TOKEN}"]}
    config = small_config | {"budget": {"trials": 1}, "watching": watching, "resources": {"address": "${MY_TOKEN}:1"}}
    run = search(config, tmp_path / "run", inline=True)
    assert (tmp_path / "called").read_text() == f"Bearer {SECRET}\n"
    model = export(run, tmp_path / "model")
    for file in [*run.directory.rglob("*"), *model.rglob("*")]:
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    for name in ("config.yaml", "status.json", "journal.sqlite"):
        assert mode(run.directory / name) == 0o600, name
    assert "cannot log in with ${MY_TOKEN}" in (run.directory / "status.json").read_text()
    assert "Bearer ${MY_TOKEN}" in (run.directory / "config.yaml").read_text()
    assert load_run(run.directory).config.document["resources"]["address"] == "${MY_TOKEN}:1"
    assert {mode(file) for file in model.rglob("*") if file.is_file()} == {0o644}
    for file in filter(Path.is_file, model.rglob("*")):
        assert b"MY_TOKEN" not in file.read_bytes(), file
    for file in (run.directory / "tensorboard").rglob("*"):
        assert not file.is_file() or b"MY_TOKEN" not in file.read_bytes(), file


def test_references_are_expanded_where_they_are_used(monkeypatch):
    monkeypatch.setenv("ONE", "1")
    monkeypatch.delenv("NONE", raising=False)
    assert expanded("${ONE}$ONE ${ONE }", "x") == "1$ONE ${ONE }"
    assert expanded_command(["sh", "-c", "echo ${NONE}", "${ONE}"], "x") == ["sh", "-c", "echo ${NONE}", "1"]
    assert concealed("it was 1", "${ONE} ${NONE}") == "it was ${ONE}"
    with pytest.raises(ConfigError, match="names the environment variable NONE, which is not set"):
        expanded("${NONE}", "resources.address")
    with pytest.raises(ConfigError, match="NONE, which is not set"):
        load_hook([sys.executable, "${NONE}"], 5)


def test_a_failing_hook_does_not_show_its_secret(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    with pytest.raises(NasMetaError) as raised:
        load_hook([sys.executable, "-c", FAILING, "${MY_TOKEN}"], 30)({})
    assert SECRET not in str(raised.value) and "cannot log in with ${MY_TOKEN}" in str(raised.value)


def test_what_others_see_has_no_hooks_and_no_addresses():
    document = {"watching": {"on_trial_end": ["x"]}, "resources": {"address": "a:1", "workers": 2}, "seed": 0}
    assert shareable(document) == {"resources": {"workers": 2}, "seed": 0}
