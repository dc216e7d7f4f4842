"""The text that users read is plain English, without constructions that a native reader has to parse twice.

Help texts, descriptions of options, error messages, documentation and comments of ready configs are searched for such
constructions. Each rule names the words to use instead. Rules cannot judge style; they keep out known mistakes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from nas_meta.cli.main import app
from nas_meta.config.sections import Config
from nas_meta.core import plugins

ROOT = Path(__file__).parents[2]
PACKAGES = ("nas_meta", "search_spaces", "strategies")
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
    + list((ROOT / "docs").rglob("*.md"))
)
UNKNOWN = "…"  # stands for a value that an f-string inserts


@dataclass(frozen=True)
class Rule:
    """A construction to avoid.

    Attributes:
        name: Short name.
        pattern: Matches the construction. Words are separated by ``\\s``, because prose may be wrapped.
        instead: What to write.
    """

    name: str
    pattern: re.Pattern[str]
    instead: str


# An of-phrase before the noun that it belongs to: at the beginning of a text, or after a stop or a dash.
FRONTED_OF = r"(?:\A|(?<=[.;:!?#—–]\s))(?:(?:and|or|but)\s)?of\s(?!course\b|which\b|whom\b|whose\b)\w+(?:\s\w+){0,2}"
# "is no X" is fine after "there", and before a comparative.
COMPARATIVES = "longer|shorter|larger|bigger|smaller|slower|faster|better|worse|higher|lower|greater|fewer|more|less"
RULES = [
    Rule("told", re.compile(r"\btold\b", re.I), "reported, predicted, given or distinguished"),
    Rule("said", re.compile(r"\bsaid\b", re.I), "reported, printed or stated"),
    Rule("heard", re.compile(r"\bheard\b", re.I), "received or recorded"),
    Rule("is none", re.compile(r"\b(?:is|are|was|were)\snone\b"), "'is not one of X, Y' or 'there are no X'"),
    Rule("is no X", re.compile(rf"(?<!there\s)\b(?:is|are|was|were)\sno\s(?!(?:{COMPARATIVES})\b)\w+", re.I),
         "'is not a valid X', or 'is not' with the article"),
    Rule("so many", re.compile(r"\bso\smany\b", re.I), "'the number of X', or a unit such as 'in seconds'"),
    Rule("so long", re.compile(r"\bso\slong\b", re.I), "a duration, or 'as long as'"),
    Rule("fronted of", re.compile(FRONTED_OF, re.I), "the noun first: 'number of random architectures'"),
    Rule("goes on", re.compile(r"\b(?:go|goes|going|went|gone)\son\b(?!\s(?:the|a|an|each|every|top)\b)", re.I),
         "resumes, continues or keeps training"),
    Rule("Within,", re.compile(r"\bWithin,"), "name the place: 'Inside the block, ...'"),
    Rule("heir", re.compile(r"\bheirs?\b", re.I), "a candidate that inherits weights"),
    Rule("asked of", re.compile(r"\bask(?:s|ed)?\sof\b", re.I), "name the call, such as 'plugin calls'"),
    Rule("no more a", re.compile(r"\bno\s(?:more|less|fewer)\san?\s\w+", re.I), "'X per Y stays flat'"),
]  # fmt: skip
RULES_BY_NAME = {rule.name: rule for rule in RULES}


@dataclass(frozen=True)
class Finding:
    """A place that breaks a rule."""

    where: str
    words: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.where}: '{self.words}' ({self.rule.name}); write {self.rule.instead}"


def findings(text: str, where: str, line: int | None = None) -> list[Finding]:
    """Apply every rule to a text.

    Args:
        text: The text; only single white space between words.
        where: File, command or option.
        line: Line of the file where the text starts; ``None`` for texts without lines.

    Returns:
        What breaks a rule, with the exact line if ``line`` is given.
    """
    found = []
    for rule in RULES:
        for match in rule.pattern.finditer(text):
            place = where if line is None else f"{where}:{line + text[: match.start()].count(chr(10))}"
            found.append(Finding(place, " ".join(match[0].split()), rule))
    return found


def check(found: list[Finding]) -> None:
    """Fail with one line per finding."""
    if found:
        pytest.fail("\n".join(map(str, found)), pytrace=False)


def check_texts(texts: Mapping[str, str]) -> None:
    """Check texts by the names of their places; a text that several places share is reported once."""
    places = {one_space(text): where for where, text in reversed(texts.items())}
    check([finding for text, where in reversed(places.items()) for finding in findings(text, where)])


# --- the rules themselves ---------------------------------------------------------------------------------------------

EXAMPLES = [  # rule, text that breaks it, its correction
    ("fronted of",
     "Bytes that a trial may take: what is free on its GPU; or of main memory, what its threads are of the CPUs.",
     "Bytes available to a trial: free GPU memory, or free RAM scaled by the trial's share of the CPU threads."),
    ("fronted of", "Of the search it knows what that began with: its history is only that of these.",
     "Build the strategy with the original trial and worker counts, not the resumed ones: replay must reproduce its "
     "proposals."),
    ("heir", "An heir reads on: the rows of its donor again, masked alike, would be learned by heart.",
     "A candidate that inherits weights gets its own data order; repeating the donor's batches would only memorise "
     "them."),
    ("asked of", "What is asked of a plugin: whatever it raises becomes one sentence that names it.",
     "Error boundary for plugin calls: turns any exception into a PluginError that names the plugin and the method."),
    ("is none", "row 3 of its trials cannot be read: its status is none",
     "row 3 cannot be read: its status is not one of running, completed, failed"),
    ("so long", "an event may take a hook so long", "timeout of one hook call, in seconds"),
    ("so many", "trained weights are kept of so many best trials", "number of best trials whose weights are kept"),
    ("so many", "a trial whose worker dies is run again so many times", "how often a trial is retried after its worker "
     "dies"),
    ("fronted of", "random ones of a config; of a run its own",
     "number of random architectures to score (a run scores its own trials)"),
    ("no more a", "Long and wide ones cost no more a trial", "Cost per trial stays flat"),
    ("told", "0.8, 0.1  # of the tokens that are to be told",
     "0.8, 0.1  # shares of the tokens selected for prediction"),
    ("fronted of", "0.8, 0.1  # of the tokens that are to be told",
     "0.8, 0.1  # shares of the tokens selected for prediction"),
    ("said", "what the model said of the text", "what the model predicted for the text"),
    ("heard", "whoever heard of the trial first", "the monitor that received the trial first"),
    ("is no X", "[1] is no hook; expected a command", "[1] is not a hook; expected a command"),
    ("is no X", "a key that\nis no text", "a key that\nis not text"),
    ("is no X", "scores are no accuracies", "scores are not accuracies"),
    ("goes on", "a killed search goes on where it stopped", "a killed search resumes where it stopped"),
    ("goes on", "go on with the run in --run-dir", "resume the run in --run-dir"),
    ("Within,", "A trial is a generator. Within, nothing knows Ray.", "A trial is a generator and does not know Ray."),
    ("fronted of", "of everything random", "seed of all random numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "broken", "corrected"), EXAMPLES)
def test_a_rule_catches_its_example_and_accepts_the_correction(name, broken, corrected):
    assert RULES_BY_NAME[name] in [finding.rule for finding in findings(broken, "example")]
    assert findings(corrected, "example") == []


def test_every_rule_has_an_example():
    assert {name for name, _, _ in EXAMPLES} == set(RULES_BY_NAME)


@pytest.mark.parametrize(
    "text",
    [
        "there is no file nowhere.py",
        "There\nare no trials; this is no longer needed, and is no slower than before",
        "`direction` is `none` where the metric is only limited; the default is None",
        "8 trials, of which 3 failed; of course",
        "the number\nof tokens (at most 32), the share\nof steps",
        "the weights go on the GPU; put it on top",
        "stays within a node. Within two hours it ends.",
    ],
)
def test_ordinary_english_breaks_no_rule(text):
    assert findings(text, "example") == []


# --- command line -----------------------------------------------------------------------------------------------------


def help_texts() -> Iterator[tuple[str, str]]:
    """Yield every help text of the command line with the command or option that it belongs to."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, str]]:
        for text in (command.help, command.short_help, command.epilog):
            if text:
                yield name, text
        for parameter in command.params:
            if text := getattr(parameter, "help", None):
                yield f"{name} {parameter.opts[0]}", text
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner, f"{name} {inner.name}")

    yield from walk(typer.main.get_command(app), "nas-meta")


def test_help_texts():
    texts = dict(help_texts())
    assert {"nas-meta", "nas-meta search", "nas-meta search --set", "nas-meta space check"} <= set(texts)
    check_texts(texts)


# --- descriptions of the config and of plugins ------------------------------------------------------------------------


def descriptions(model: type[BaseModel], where: str) -> Iterator[tuple[str, str]]:
    """Yield the description of every field of a model, and of the models nested in it."""

    def nested(annotation: Any) -> Iterator[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        for argument in get_args(annotation):
            yield from nested(argument)

    for name, field in model.model_fields.items():
        if field.description:
            yield f"{where}.{name}", field.description
        for inner in nested(field.annotation):
            yield from descriptions(inner, f"{where}.{name}")


def described() -> Iterator[tuple[str, str]]:
    """Yield the descriptions of the config, of the options of all plugins, and the summaries of all plugins."""
    yield from descriptions(Config, "config")
    for kind, properties in plugins.KINDS.items():
        for row in plugins.installed(kind):
            if row.broken is None and row.distribution == "nas-meta":
                yield f"{properties.word} {row.name}", row.summary
                yield from descriptions(plugins.options_of(kind, row.name), f"{properties.word} {row.name}")


def test_descriptions_of_options_and_plugins():
    texts = dict(described())
    some = {"config.budget.trials", "learner protonet.training.warmup", "strategy darts", "stopping rule asha.eta"}
    assert some <= set(texts)
    check_texts(texts)


# --- error messages and other text in code ----------------------------------------------------------------------------

SQL = re.compile(r"\s*(?:SELECT|INSERT|CREATE|UPDATE|DELETE|PRAGMA)\b")  # names of stored tables and columns stay


def sentences(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the string literals of a module that may be text, with their lines.

    These are error messages, clauses of messages, warnings and printed text: all literals of at least two words, except
    docstrings and SQL. A value that an f-string inserts becomes ``…``.
    """
    skipped: set[ast.AST] = set()
    for node in ast.walk(module):
        if node in skipped:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            skipped |= {part for part in node.values if isinstance(part, ast.Constant)}
            parts = [part.value if isinstance(part, ast.Constant) else UNKNOWN for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(text := node.value, str):
            if len(text.split()) < 2 or SQL.match(text):
                continue
            # A literal that starts with a space continues another one.
            yield node.lineno, UNKNOWN + text if text[0].isspace() else text


def test_sentences_of_a_module():
    source = '''
"""A heard docstring."""
def f(x):
    "told so"
    if x:
        raise ConfigError(
            f"{x} is no hook; expected {', '.join(x) or ' of them'} "
            "so many"
        ) from error
    said = x["said"] + "its status is none"
    db.execute("SELECT kind FROM said")
'''
    texts = sorted(sentences(ast.parse(source)))
    assert texts == [(7, "… is no hook; expected … so many"), (7, "… of them"), (10, "its status is none")]
    names = [finding.rule.name for line, text in texts for finding in findings(text, "f.py", line)]
    assert names == ["is no X", "so many", "is none"]


@pytest.mark.parametrize("package", PACKAGES)
def test_error_messages_and_other_text_in_code(package):
    found = []
    for file in sorted((ROOT / package).rglob("*.py")):
        for line, text in sorted(sentences(ast.parse(file.read_text(encoding="utf-8")))):
            found += findings(one_space(text), f"{file.relative_to(ROOT)}:{line}")
    check(found)


# --- documentation ----------------------------------------------------------------------------------------------------

LIST_ITEM = re.compile(r"([-*+]|\d+\.)\s+")
FENCE = re.compile(r"\s*(`{3,}|~{3,})")


def passages(markdown: str) -> Iterator[tuple[int, str]]:
    """Yield the passages of a Markdown text with their lines: paragraphs, list items, table cells and lines of code.

    A passage is as wide as a sentence can be. Its lines are stripped, so that prose may be wrapped anywhere.
    """
    passage: list[str] = []
    start, fence = 0, ""

    def done() -> Iterator[tuple[int, str]]:
        if passage:
            yield start, "\n".join(passage)
            passage.clear()

    for number, line in enumerate(markdown.splitlines(), 1):
        stripped = one_space(line).removeprefix("> ")
        marker = FENCE.match(line)
        if marker and (not fence or stripped == fence):
            yield from done()
            fence = "" if fence else marker[1]
        elif fence:
            yield number, stripped
        elif not stripped or stripped.startswith(("#", "<", "---")):
            yield from done()
            yield number, stripped.lstrip("# ")
        elif stripped.startswith("|"):
            yield from done()
            yield from ((number, cell.strip()) for cell in stripped.split("|"))
        else:
            if item := LIST_ITEM.match(stripped):
                yield from done()
                stripped = stripped[item.end() :]
            if not passage:
                start = number
            passage.append(stripped)
    yield from done()


def one_space(text: str) -> str:
    """Return a text without indentation and with single spaces between words."""
    return " ".join(text.split())


def test_passages_of_markdown():
    markdown = (
        "# Title\n\nA number\n  of tokens is no\nproblem.\n- An item, so\n  many\n- Of two\n\n"
        "| a | of b |\n| --- | --- |\n```yaml\ntrials: 8  # of the front\n```\nEnd."
    )
    found = [str(f).split(";")[0] for line, text in passages(markdown) for f in findings(text, "a.md", line)]
    assert found == [
        "a.md:4: 'is no problem' (is no X)", "a.md:6: 'so many' (so many)", "a.md:8: 'Of two' (fronted of)",
        "a.md:10: 'of b' (fronted of)", "a.md:13: 'of the front' (fronted of)",
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documentation(page):
    where = str(page.relative_to(ROOT))
    text = page.read_text(encoding="utf-8")
    check([finding for line, passage in passages(text) for finding in findings(passage, where, line)])


COMMENT = re.compile(r"(?:^|\s)#\s+(.*)")


def comments(document: str) -> str:
    """Return the comments of a YAML file as Markdown with the same lines; comments after values become list items."""
    lines = []
    for line in document.splitlines():
        comment = COMMENT.search(line)
        lines.append("" if comment is None else comment[1] if line.startswith("#") else f"- {comment[1]}")
    return "\n".join(lines)


def test_comments_of_a_config():
    document = (
        "# A front, so\n# many trials.\nspace:\n  name: a  # of the front\n  color: '#of x'\n  size: 3  # of tokens"
    )
    found = [f.where for line, text in passages(comments(document)) for f in findings(text, "a.yaml", line)]
    assert found == ["a.yaml:1", "a.yaml:4", "a.yaml:6"]


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda config: config.name)
def test_ready_configs(config):
    text = comments(config.read_text(encoding="utf-8"))
    check([f for line, passage in passages(text) for f in findings(passage, f"configs/{config.name}", line)])
