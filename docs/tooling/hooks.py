"""Builds the parts of the site that are not in ``docs``: generated references, repository pages and ready configs.

Pages link to each other as files of the repository do, so that every link works on GitHub; here they become links
of the site.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from configuration import configuration_page

ROOT = Path(__file__).parents[2]
# page of the site -> file of the repository
REPOSITORY_PAGES = {
    "benchmarks.md": "benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
SITE_OF = {file: page for page, file in REPOSITORY_PAGES.items()} | {
    "README.md": "index.md",
    "configs": "configuration.md#ready-configs",
}
FENCED = re.compile(r"^( *)(`{3,}).*?^\1\2$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds repository pages, ready configs and the JSON Schema."""
    made = {page: (ROOT / file).read_text(encoding="utf-8") for page, file in REPOSITORY_PAGES.items()}
    made |= {f"configs/{file.name}": file.read_text(encoding="utf-8") for file in (ROOT / "configs").glob("*.yaml")}
    made["config.schema.json"] = json.dumps(_schema(), indent=1)
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links of the site, and appends generated references."""
    path = page.file.src_uri
    text = site_links(markdown, path, REPOSITORY_PAGES.get(path, f"docs/{path}"))
    if path == "configuration.md":
        return f"{text}\n{configuration_page(_schema())}"
    if path == "cli.md":
        return f"{text}\n{command_line_reference()}"
    return text


def command_line_reference() -> str:
    """Every command with its arguments and options, as ``--help`` shows them."""
    import typer
    from typer.cli import get_docs_for_click

    from nas_meta.cli.main import app

    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="nas-meta")
    reference = get_docs_for_click(obj=command, ctx=context, name="nas-meta", title="All options")
    return reference.replace("# All options", "## All options", 1)


def site_links(text: str, page: str, file: str) -> str:
    """Rewrites the links of a page, but not those in code.

    Args:
        text: Markdown of a file of the repository.
        page: where it is on the site.
        file: where it is in the repository.
    """

    def rewrite(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target:
            return link[0]
        found = _site_path(posixpath.normpath(posixpath.join(posixpath.dirname(file), target)))
        if found is None:
            return words
        return f"[{words}]({posixpath.relpath(found, posixpath.dirname(page) or '.')}{anchor})"

    parts, end = [], 0
    for code in FENCED.finditer(text):
        parts += [LINK.sub(rewrite, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(rewrite, text[end:])])


def _site_path(file: str) -> str | None:
    """Where a file of the repository is on the site; None where it is not there."""
    if file in SITE_OF:
        return SITE_OF[file]
    if file.startswith("docs/"):
        return file.removeprefix("docs/")
    return file if file.startswith("configs/") else None


def _schema() -> dict[str, Any]:
    from nas_meta.config.json_schema import schema

    return schema()
