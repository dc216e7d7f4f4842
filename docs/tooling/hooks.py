"""Pages that are made from the code while the site is built: nothing in them is copied by hand."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from configuration import configuration_page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    from nas_meta.config.json_schema import schema

    document = schema()
    made: dict[str, str] = {
        "guide.md": readme_page(ROOT / "README.md"),
        "benchmarks.md": readme_page(ROOT / "benchmarks" / "README.md"),
        "configuration.md": configuration_page(document),
        "cli.md": command_line_page(),
        "config.schema.json": json.dumps(document, indent=1),
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def command_line_page() -> str:
    """Every command with its arguments and options, as ``--help`` tells them."""
    import typer
    from typer.cli import get_docs_for_click

    from nas_meta.cli.main import app

    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="nas-meta")
    return get_docs_for_click(obj=command, ctx=context, name="nas-meta", title="The command line")


def readme_page(file: Path) -> str:
    """A README of the repository as a page: its pictures are the site's, what is not on the site is no link."""
    text = file.read_text(encoding="utf-8").replace("](docs/", "](").replace("](../docs/", "](")
    return LINK.sub(_on_site, text)


def _on_site(link: re.Match[str]) -> str:
    words, target, anchor = link[1], link[2], link[3] or ""
    if target == "benchmarks/README.md":
        return f"[{words}](benchmarks.md{anchor})"
    known = (ROOT / "docs" / target).is_file() or target in ("configuration.md", "cli.md") or "://" in target
    return link[0] if known else words
