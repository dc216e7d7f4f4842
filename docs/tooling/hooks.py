"""MkDocs hooks for the parts of the site outside ``docs``: generated references, repository pages and ready configs.

Pages link to files of the repository, so that every link works on GitHub; the hooks turn these into links of the site.
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
    """Add repository pages, ready configs and the JSON Schema to the site.

    Args:
        files: The files that MkDocs found; extended in place.
        config: The config of the site.

    Returns:
        ``files``.
    """
    contents = {page: (ROOT / file).read_text(encoding="utf-8") for page, file in REPOSITORY_PAGES.items()}
    contents |= {f"configs/{file.name}": file.read_text(encoding="utf-8") for file in (ROOT / "configs").glob("*.yaml")}
    contents["config.schema.json"] = json.dumps(_schema(), indent=1)
    for path, content in contents.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links of the site, and append generated references.

    Args:
        markdown: Text of the page.
        page: The page.
        config: The config of the site.
        files: All files of the site.

    Returns:
        The new text of the page.
    """
    path = page.file.src_uri
    text = site_links(markdown, path, REPOSITORY_PAGES.get(path, f"docs/{path}"))
    if path == "configuration.md":
        return f"{text}\n{configuration_page(_schema())}"
    if path == "cli.md":
        return f"{text}\n{command_line_reference()}"
    return text


def command_line_reference() -> str:
    """Return the reference of the command line.

    Returns:
        Markdown with every command, its arguments and its options, as ``--help`` shows them.
    """
    import typer
    from typer.cli import get_docs_for_click

    from nas_meta.cli.main import app

    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="nas-meta")
    reference = get_docs_for_click(obj=command, ctx=context, name="nas-meta", title="All options")
    return reference.replace("# All options", "## All options", 1)


def site_links(text: str, page: str, file: str) -> str:
    """Rewrite the links of a page; code blocks stay as they are.

    Args:
        text: Markdown of a file of the repository.
        page: Path of the page on the site.
        file: Path of the file in the repository.

    Returns:
        The Markdown with links that work on the site. A link to a file without a page becomes plain text.
    """

    def rewrite(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target:
            return link[0]
        path = _site_path(posixpath.normpath(posixpath.join(posixpath.dirname(file), target)))
        if path is None:
            return words
        return f"[{words}]({posixpath.relpath(path, posixpath.dirname(page) or '.')}{anchor})"

    parts, end = [], 0
    for code in FENCED.finditer(text):
        parts += [LINK.sub(rewrite, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(rewrite, text[end:])])


def _site_path(file: str) -> str | None:
    """Return the path of a repository file on the site, or None if the site does not have it."""
    if file in SITE_OF:
        return SITE_OF[file]
    if file.startswith("docs/"):
        return file.removeprefix("docs/")
    return file if file.startswith("configs/") else None


def _schema() -> dict[str, Any]:
    from nas_meta.config.json_schema import schema

    return schema()
