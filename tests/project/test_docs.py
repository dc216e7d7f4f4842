"""The documentation: nothing public is missing in it, and it builds without a warning and without the network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import nas_meta
from benchmarks.table import Table
from nas_meta.cli.plugin_description import options_of
from nas_meta.config.json_schema import schema
from nas_meta.config.sections import PLUGIN_SECTIONS, Config
from nas_meta.core import plugins

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def configuration():
    """The page about the config, each section's part by its name."""
    sys.path.insert(0, str(DOCS / "tooling"))
    try:
        from configuration import configuration_page
    finally:
        sys.path.pop(0)
    parts = re.split(r"^## (.+)$", configuration_page(schema()), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_public_name_has_its_place():
    documented = {n for page in (DOCS / "api").glob("*.md") for n in re.findall(r"^::: (\S+)", page.read_text(), re.M)}
    assert {f"nas_meta.{name}" for name in nas_meta.__all__} <= documented
    assert {"nas_meta.testing.SpaceTests", "nas_meta.errors.TrialError"} <= documented


def test_every_promised_module_is_documented():
    promised = {file.stem for file in (ROOT / "tests" / "compat" / "api").glob("*.pyi")}
    pages = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    assert not [module for module in promised if f"::: {module}." not in pages]


def test_every_section_and_every_plugins_options_are_on_the_page_of_the_config(configuration):
    assert set(Config.model_fields) - {"seed", "run_dir"} <= set(configuration)
    assert "`seed`" in configuration["Top-level keys"]
    for section, (_, kind, _) in PLUGIN_SECTIONS.items():
        for row in plugins.installed(kind):
            if row.broken is None and row.distribution == "nas-meta":
                assert f"### {section}: {row.name}\n\n{row.summary}" in configuration[section]
                for option in options_of(plugins.options_of(kind, row.name)):
                    assert f"| `{option['name']}` |" in configuration[section], (section, row.name)


def test_every_section_has_an_example():
    documents = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "configuration.md").read_text(), re.M | re.S)
    alone = {name for document in map(yaml.safe_load, documents) if len(document) == 1 for name in document}
    assert alone == set(Config.model_fields) - {"seed", "run_dir"}


def test_a_row_has_what_the_model_says(configuration):
    for section, row in {
        "budget": "| `trials` | a whole number ≥ 1 | `20` | number of trials to run |",
        "latency": "| `seconds` | a number > 0 | `1.0` | measuring time",
        "compute": '| `device` | `auto` or `cpu` or `cuda` | `"auto"` | device of the models',
        "learner": '| `training.decay` | `none` or `linear` or `cosine`, may be a choice | `"none"` | how',
        "resources": "| `cpus_per_trial` | a number > 0 or nothing | `null` | CPUs per trial",
    }.items():
        assert row in configuration[section]


def test_the_files_that_are_said_to_exist_do():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:nas_meta|search_spaces|strategies|benchmarks|configs|tests|docs)/(?:\w+/)*)`", text)
    assert len(named) > 15
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_table_of_the_benchmarks_has_a_command_that_measures_it(monkeypatch, capsys):
    """Without data sets of the user, unless the benchmark names the variables that hold their folders."""
    from benchmarks import run

    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"^<!-- (\w+) -->$", text, re.M)
    measured = []
    monkeypatch.setattr(run, "publish", lambda name, table: measured.append(name))
    for module in run.BENCHMARKS.values():
        monkeypatch.setattr(module, "measure", lambda: Table((), [], ""))
    for name in tables:
        assert run.main([name]) == (2 if hasattr(run.BENCHMARKS[name], "VARIABLES") else 0), name
    assert len(tables) > 25 and measured == [n for n in tables if not hasattr(run.BENCHMARKS[n], "VARIABLES")]
    capsys.readouterr()


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the site needs the extra nas-meta[docs]")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {page.relative_to(tmp_path): page.read_text() for page in tmp_path.rglob("*.html")}
    assert len(pages) >= 15
    for path, text in pages.items():
        tags = r'<(?:script|link|img|iframe|source)[^>]*(?:src|srcset|href)="((?:https?:)?//[^"]*)"'
        fetched = re.findall(tags, text)
        assert not fetched, (path, fetched)
        assert not re.search(r":(?:meth|class|func|attr|data|mod):`", text), path
    for file in (*tmp_path.rglob("*.css"), *tmp_path.rglob("*.svg")):
        assert not re.search(r"""(?:@import|url\()\s*["']?(?:https?:)?//""", file.read_text()), file
    assert 'href="#nas_meta.SearchSpace.choices"' in pages[Path("api/space/index.html")]
