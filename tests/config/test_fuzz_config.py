"""Arbitrary configs are read or refused with one sentence; reading never runs their content and never hangs."""

import copy
import os
from pathlib import Path

import pytest
import yaml
from fuzzing import junk, many, sentence, spoiled, tried
from hypothesis import given
from hypothesis import strategies as st

from nas_meta.config.json_schema import schema
from nas_meta.config.resolved import read_config, resolve
from nas_meta.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
READY = [yaml.safe_load(file.read_text()) for file in CONFIGS]


@pytest.fixture(scope="module")
def document_of():
    """Hypothesis strategy for configs from the JSON Schema: some sections with some of their keys and valid values."""
    whole = schema()

    def value(rule):
        if "$ref" in rule:
            return value(whole["$defs"][rule["$ref"].rpartition("/")[2]])
        if options := rule.get("anyOf") or rule.get("oneOf"):
            return st.one_of([value(option) for option in options])
        if "const" in rule:
            return st.just(rule["const"])
        if "enum" in rule:
            return st.sampled_from(rule["enum"])
        if rule.get("type") == "object":
            known = {name: value(inner) for name, inner in rule.get("properties", {}).items()}
            needed = set(rule.get("required", ()))
            return st.fixed_dictionaries(
                {n: v for n, v in known.items() if n in needed},
                optional={n: v for n, v in known.items() if n not in needed},
            )
        if rule.get("type") == "array":
            items = value(rule["items"]) if "items" in rule else st.sampled_from([0.5, 0.25, 0.25])
            return st.lists(items, min_size=rule.get("minItems", 0), max_size=max(3, rule.get("minItems", 0)))
        least, most = (
            rule.get("minimum", rule.get("exclusiveMinimum")),
            rule.get("maximum", rule.get("exclusiveMaximum")),
        )
        if rule.get("type") == "integer":
            return st.integers(least, most)
        if rule.get("type") == "number":
            return st.floats(least, most)
        return {
            "boolean": st.booleans(),
            "null": st.none(),
            "string": st.sampled_from(["x", "out.jsonl", "protonet"]),
        }.get(rule.get("type"), junk)

    return value(whole)


def check_round_trip(config):
    """Check that a config that was read resolves to itself when it is written and read again."""
    if config is not None:
        assert resolve(yaml.safe_load(config.as_yaml())).document == config.document


@tried(150, 6000)
def test_configs_that_the_schema_allows_and_corrupted_ones(cases, document_of):
    @many(cases)
    @given(st.data())
    def property(data):
        document = data.draw(st.sampled_from(READY).map(copy.deepcopy) | document_of)
        for _ in range(data.draw(st.integers(0, 2))):
            if document:
                spoiled(document, data)
        check_round_trip(sentence(resolve, document))

    property()


@tried(150, 5000)
def test_arbitrary_text_and_bytes_as_a_config(cases, tmp_path):
    file = tmp_path / "c.yaml"
    pieces = [
        "&a ",
        "*a",
        "<<: ",
        "? ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ": ",
        "\n",
        "  ",
        "!!int ",
        "!!python/name:os.system ",
        "!!timestamp ",
        "!!binary ",
        "!!set ",
        "%YAML 1.1\n",
        "--- ",
        "| ",
        "'",
        '"',
        "\t",
        "0x",
        "1:60",
        "=",
        "~",
        "2024-13-45",
        "seed",
        "tasks",
        "learner",
        "choice",
        ".nan",
        ".inf",
        "1e400",
        "\ud7ff",
        "\x85",
        "#",
    ]
    yamlish = st.lists(st.sampled_from(pieces) | st.text(max_size=3), max_size=25).map("".join)

    @many(cases)
    @given(
        st.binary(max_size=200) | (yamlish | st.text(max_size=200)).map(lambda t: t.encode("utf-8", "surrogatepass"))
    )
    def property(content):
        file.write_bytes(content)
        check_round_trip(sentence(read_config, file))

    property()


@tried(150, 3000)
def test_ready_configs_with_some_bytes_changed(cases, tmp_path):
    file = tmp_path / "c.yaml"

    @many(cases)
    @given(
        st.sampled_from(CONFIGS),
        st.lists(st.tuples(st.integers(0), st.binary(max_size=6), st.integers(0, 5)), max_size=4),
    )
    def property(ready, changes):
        content = ready.read_bytes()
        for at, new, dropped in changes:
            at %= len(content)
            content = content[:at] + new + content[at + dropped :]
        file.write_bytes(content)
        check_round_trip(sentence(read_config, file))

    property()


@tried(40, 3000)
def test_arbitrary_overrides(cases):
    keys = st.sampled_from(
        [
            "learner.lr",
            "tasks.path",
            "space",
            "space.name",
            "learner.training.clip",
            "",
            ".",
            "a..b",
            "objectives",
            "objectives.0.metric",
            "stopping",
            "tasks.source",
            "seed",
        ]
    ) | st.text(max_size=12)
    values = (
        st.text(max_size=20)
        | junk.map(lambda v: yaml.safe_dump(v))
        | st.sampled_from(
            ["&x [*x]", "2024-13-45", "{choice: [1, 2]}", "{1: {choice: [1]}}", "os:system", "[" * 2000, "!!int ''"]
        )
    )

    @many(cases)
    @given(st.lists(st.tuples(keys, st.sampled_from(["=", "=", "=", ""]), values).map("".join), min_size=1, max_size=3))
    def property(overrides):
        check_round_trip(sentence(read_config, CONFIGS[0], overrides))

    property()


ALIAS_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]}}\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (ALIAS_BOMB, r"more than 50,000 values"),
        (MERGE_BOMB, r"more than 50,000 values"),
        ("seed: &a [*a]", r"c\.yaml:1: .*nested deeper than 50"),
        ("space: &a\n  <<: *a", r"c\.yaml:\d: .*nested deeper than 50"),
        ("[" * 100_000, r"nested deeper than 50"),
        ("seed: " + "{a: " * 100, r"c.yaml:1: not YAML"),
        ("seed: 1\ntasks: {}\nseed: 2", r"c\.yaml:3: .*the key 'seed' is given twice"),
        ("learner: {2024: {choice: [1]}}", r"c\.yaml:1: .*the key 2024; expected text"),
        ("? [a]\n: b", r"a list or a mapping as a key; expected text"),
        ("seed: !!int ''", r"c\.yaml:1: .*a value is not a valid int"),
        ("seed: " + "9" * 5000, r"c\.yaml:1: .*a value is not a valid int"),
        ("seed: !!timestamp yesterday", r"the tag .*timestamp"),
        ("budget: {hours: .inf}", r"budget\.hours is inf; expected a finite number"),
        ("space: {name: 'a\\0.py:X'}", r"no file"),
        ('space: {name: "a\\0b.py:X"}', r"no file a\\x00b\.py"),
        ("space: {name: /dev/stdin.py:X}", r"no file"),
        ("space: {name: ~nobody/x.py:X}", r"no file"),
        ("space: {name: os:system}", r"'os:system' is not an installed search space"),
        ('space: {name: "os\\nsystem"}', r"'os\\nsystem' is not an installed search space"),
        ("space: {name: " + "x" * 5000 + ".py:X}", r"\[\.\.\.\].*\(File name too long\)"),
        ("a" * 300_000, r"it has 300,000 bytes; expected at most 262,144"),
    ],
)
def test_input_that_would_break_a_naive_reader_is_refused_with_a_sentence(content, sentence, tmp_path):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError, match=sentence):
        read_config(tmp_path / "c.yaml")


def test_folders_pipes_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / "pipe", "a pipe"), ("/dev/zero", "a device")):
        with pytest.raises(ConfigError, match=words):
            read_config(path)
    with pytest.raises(ConfigError, match="no file can have this name"):
        read_config("a\0b")


def test_a_byte_order_mark_is_accepted_and_utf_16_refused(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("seed: 7\n", encoding="utf-8-sig")
    assert read_config(file).sections.seed == 7
    file.write_text("seed: 7\n", encoding="utf-16")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_config(file)


def test_merge_keys_are_expanded_and_dates_stay_text(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        "tasks: &t {ways: 3, source: jsonl, path: 2024-01-01}\nevaluation: {episodes: 30}\n"
        "latency: {<<: &l {tokens: 4}, <<: *l}\n".replace(", <<: *l", "")
    )
    resolved = read_config(file)
    assert resolved.sections.latency.tokens == 4 and resolved.options["tasks"].path.name == "2024-01-01"


def test_an_unknown_plugin_name_is_not_imported(tmp_path):
    """Names are only looked up among installed plugins: a module of that name in the same folder does not run."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    for section, key in (("space", "name"), ("tasks", "source"), ("learner", "name"), ("strategy", "name")):
        for name in ("evil", "evil:X", "evil.py", f"{tmp_path}/evil", f"{tmp_path}/evil.py", "evil.X", ".evil:X"):
            with pytest.raises(ConfigError, match=r"is not an installed|there is no file|has no class"):
                resolve({section: {key: name}})
    assert not (tmp_path / "mark").exists()
