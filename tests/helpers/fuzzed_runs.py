"""Whole run directories as a search leaves them at different moments, and what may have happened to their files."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import struct

from words import WORDS

from nas_meta import search

VALUES = [
    None,
    "",
    "x" * 5000,
    "\x1b[31m\0",
    "\ud800",
    -1,
    0,
    1,
    2**63 - 1,
    -(2**63),
    1e308,
    float("nan"),
    b"\xff\0",
    True,
]
DOCUMENTS = [
    None,
    "",
    [],
    {},
    0,
    True,
    -1,
    0.5,
    "nan",
    "\x1b[31m",
    "../../outside/mine.txt",
    "/dev/zero",
    [[]],
    [None],
    {"a": {}},
    float("nan"),
    float("inf"),
    "a:b",
    "file.py:Name",
    {"choice": []},
    {"name": None},
    "auto",
    "9" * 400,
]
STATEMENTS = [
    "DROP TABLE trials",
    "DROP TABLE info",
    "DROP TABLE said",
    "DROP TABLE reports",
    "DELETE FROM info",
    "DELETE FROM said",
    "DELETE FROM trials",
    "DELETE FROM trials WHERE id = 1",
    "UPDATE trials SET id = id + 1",
    "UPDATE trials SET id = -id",
    "UPDATE said SET trial = 99",
    "DELETE FROM reports",
    "UPDATE reports SET trial = trial + 1",
    "DELETE FROM said WHERE number = 2",
    "UPDATE said SET kind = 'told'",
    "UPDATE trials SET status = 'completed'",
    "UPDATE trials SET status = 'running'",
    "UPDATE trials SET architecture = '{}'",
    "UPDATE trials SET metrics = '{}'",
    "UPDATE trials SET seed = seed + 1",
    "INSERT INTO trials SELECT 10, architecture_id, architecture, seed, fidelity, planned, status, metrics, error, "
    "started, finished FROM trials WHERE id = 1",
    "INSERT INTO said (kind, trial) VALUES ('asked', 1)",
    "ALTER TABLE trials ADD COLUMN more",
    "CREATE TABLE more (a)",
    "ALTER TABLE said RENAME TO heard",
    "CREATE VIEW v AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON said BEGIN DELETE FROM info; END",
    "CREATE INDEX i ON trials (id)",
    "PRAGMA user_version = 99",
    "PRAGMA journal_mode = DELETE",
    "VACUUM",
    "ALTER TABLE trials RENAME TO t; CREATE TABLE trials AS SELECT * FROM t; DROP TABLE t",
    "DROP TABLE info; CREATE TABLE info (key, value)",
    "UPDATE info SET value = '2' WHERE key != 'config'",
    "UPDATE info SET value = upper(value)",
    "UPDATE info SET value = '[' || value",
]


def corpus_and_texts(folder):
    """Write unlabelled and labelled texts that the searches of :func:`snapshots` read."""
    rng = random.Random(0)
    (folder / "corpus.txt").write_text("\n".join(" ".join(rng.choices(WORDS, k=9)) for _ in range(60)))
    rows = []
    for label in range(12):
        typical = WORDS[2 * label : 2 * label + 2]
        texts = {f"{a} {b} {c}" for a in typical for b in typical for c in WORDS[:3]}
        rows += [{"text": text, "label": f"class{label}"} for text in sorted(texts)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))


def documents(folder, model):
    """Return two configs: one that adapts a model and trains a supernet, and one that pre-trains its candidates."""
    pretraining = {"corpus": str(folder / "corpus.txt"), "steps": 22, "batch": 2, "block": 8, "checkpoint_every": 10}
    common = {
        "tasks": {"source": "jsonl", "path": str(folder / "texts.jsonl"), "ways": 3, "queries": 3},
        "learner": {"name": "protonet", "steps": 2, "lr": 1e-3},
        "stopping": {"name": "median", "rungs": [1]},
        "evaluation": {"episodes": 3, "test_episodes": 3, "test_best": 1, "interim_episodes": 2, "check_models": False},
        "latency": {"seconds": 0.005, "models": 4},
        "budget": {"trials": 3},
        "resources": {"workers": 2, "cpus_per_trial": 1},
        "seed": 3,
    }
    supernet = {
        "space": {"name": "bert-subnet", "model": str(model), "heads": [1.0, 0.5], "ffn": [1.0]},
        "strategy": {"name": "supernet", "steps": 4, "checkpoint_every": 2, "judged": 4, "texts": 4},
        "pretraining": {"of": "model", **pretraining},
    }
    candidates = {
        "space": {"name": "encoder", "depth": [1, 2], "hidden": [16], "heads": [2], "ffn": [16, 32]},
        "strategy": {"name": "random"},
        "pretraining": {**pretraining, "tokenizer": {"train": 100}, "inherit": True},
        "objectives": [{"metric": "accuracy"}, {"metric": "latency"}],
    }
    return {"supernet": common | supernet, "candidates": common | candidates}


def snapshots(folder, model):
    """Run two searches and copy their directories at the moments at which a kill would leave different files.

    Args:
        folder: Where everything goes.
        model: Folder of a pretrained model.

    Returns:
        The copies by name.
    """
    corpus_and_texts(folder)
    copies = {}

    def copied(name, run):
        if name not in copies:
            copies[name] = folder / name
            shutil.copytree(run, copies[name])

    for kind, document in documents(folder, model).items():
        run = folder / f"run-{kind}"

        def watch(status, kind=kind, run=run):
            for name, checkpoint in (("adapting", "adapted.checkpoint"), ("training", "supernet.checkpoint")):
                if (run / checkpoint).is_file():
                    copied(name, run)
            if len(status.trials) == 2 and status.steps.get(2, 0) == 1:
                copied(f"searching-{kind}", run)  # with a write-ahead log, as a kill leaves it

        search(document, run, inline=True, watch=watch)
        shutil.rmtree(run / "tensorboard")
        copied(f"done-{kind}", run)
    return copies


def mutated(run, seed, outside):
    """Change a run directory in one to three ways.

    Args:
        run: The directory.
        seed: Decides what is changed and how.
        outside: Folder with files that links lead to.

    Returns:
        What was changed, in words.
    """
    rng = random.Random(seed)
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        how = rng.choice(
            [in_bytes, in_bytes, as_thing, as_thing, in_database, in_database, in_info, in_json, as_text, as_size]
        )
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, FileExistsError, IsADirectoryError):
            done.append(how(rng, run, outside))
    return "; ".join(done)


def _files(run):
    return sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink())


def _file(rng, run):
    """Return a file of the run; each folder and each name has about the same chance."""
    by_folder = {}
    for path in (path for path in _files(run) if path.stat().st_size < 2**30):  # as_size makes larger ones
        by_folder.setdefault((path.parent, path.suffix), []).append(path)
    if not by_folder:
        raise FileNotFoundError
    return rng.choice(by_folder[rng.choice(sorted(by_folder))])


def in_bytes(rng, run, outside):
    path = _file(rng, run)
    content = bytearray(path.read_bytes())
    way = rng.choice(["flip", "flip", "cut", "double", "zeros", "insert", "head"])
    at = rng.randrange(len(content) + 1)
    if way == "flip":
        for _ in range(rng.choice([1, 4, 50])):
            if content:
                content[rng.randrange(min(len(content), rng.choice([64, 4096, 10**9])))] ^= 1 << rng.randrange(8)
    elif way == "cut":
        del content[at:]
    elif way == "double":
        content += content[at:]
    elif way == "zeros":
        content[at : at + 500] = bytes(len(content[at : at + 500]))
    elif way == "insert":
        content[at:at] = rng.randbytes(rng.choice([1, 7, 4096]))
    else:
        content[:8] = struct.pack("<Q", rng.choice([0, 1, 2**32, 2**63, 2**64 - 1, len(content)]))
    path.write_bytes(content)
    return f"{path.name}: {way} at {at}"


def as_thing(rng, run, outside):
    path = rng.choice(sorted(run.rglob("*")) + [run / n for n in EXTRA])
    way = rng.choice(
        ["gone", "folder", "file", "outside", "zero", "dangling", "loop", "fifo", "inside", "locked", "full folder"]
    )
    if way == "locked":
        path.chmod(rng.choice([0o000, 0o444, 0o111]))
        return f"{path.name}: {way}"
    if path.is_dir() and not path.is_symlink():
        if way in ("folder", "full folder"):
            way = "file"
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if way in ("folder", "full folder"):
        path.mkdir()
        if way == "full folder":
            (path / "a").write_text("a")
    elif way == "file":
        path.write_bytes(b"")
    elif way == "fifo":
        os.mkfifo(path)
    elif way != "gone":
        others = _files(run)
        inside = rng.choice(others) if others else run
        targets = {"outside": rng.choice(sorted(outside.iterdir())), "zero": "/dev/zero", "dangling": outside / "new",
                   "loop": path, "inside": inside}  # fmt: skip
        path.symlink_to(targets[way])
    return f"{path.name}: {way}"


EXTRA = [
    "config.part",
    "status.part",
    "pareto.png",
    "shown",
    "lock",
    "journal.sqlite-journal",
    "journal.sqlite-shm",
    "journal.sqlite-wal",
    "supernet.part",
    "supernet.checkpoint",
    "adapted.checkpoint",
    "adapted.part",
    "adapted",
    "tokenizer",
    "tokenizer.part",
    "weights",
    "weights/1.part",
    "weights/2.safetensors",
    "logs",
    "logs/trial-0002.log",
    "logs/search.log",
    "pretrained",
    "tensorboard",
    "supernet.safetensors",
    "wandb",
    "more\n\x1b[31m\u202e",
    "weights/x.safetensors",
    "weights/99.safetensors",
    "weights/²3.safetensors",
    "pretrained/..safetensors",
]


def in_database(rng, run, outside):
    """Change the schema, rows or values of the journal."""
    path = run / "journal.sqlite"
    if not path.is_file():
        raise FileNotFoundError
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as db:
        if rng.random() < 0.5:
            statement, values = rng.choice(STATEMENTS), ()
        else:
            table = rng.choice(["info", "trials", "reports", "said", "trials"])
            try:
                columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            except sqlite3.Error:
                columns = []
            if not columns:
                raise FileNotFoundError
            where = rng.choice(["", "WHERE rowid = 1", "WHERE rowid = 2", "WHERE rowid = 3"])
            value = rng.choice([*VALUES, json.dumps(rng.choice(DOCUMENTS)), "[" * 100_000, "9" * 5000])
            statement, values = f"UPDATE OR IGNORE {table} SET {rng.choice(columns)} = ? {where}", (value,)
        with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):
            db.execute("PRAGMA ignore_check_constraints = ON")
            db.execute(statement, values) if values else db.executescript(statement)
    return f"{statement} {str(values)[:60]!r}"


def in_info(rng, run, outside):
    """Change one value of the config, the session, the report or another document in the journal."""
    path = run / "journal.sqlite"
    if not path.is_file():
        raise FileNotFoundError
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as db:
            rows = list(db.execute("SELECT key, value FROM info ORDER BY key"))
            key, text = rng.choice(rows + [row for row in rows if row[0] == "config"] * 5)
            document = {"": json.loads(text)}
            where, to = changed(rng, document)
            db.execute("UPDATE info SET value = ? WHERE key = ?", (json.dumps(document[""]), key))
    except (sqlite3.Error, IndexError, ValueError, TypeError, KeyError) as error:
        raise FileNotFoundError from error
    return f"info {key}: {where} = {to!r:.60}"


def changed(rng, document):
    """Change one value of nested dictionaries and lists; return where, and the new value."""
    places = []

    def visit(value, path):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key, [*path, key]))
            if isinstance(inner, (dict, list)):
                visit(inner, [*path, key])

    visit(document, [])
    holder, key, path = rng.choice(places)
    new = rng.choice([*DOCUMENTS, "gone", "more"])
    if new == "gone" and len(path) > 1:
        del holder[key]
    elif new == "more" and isinstance(holder, dict) and len(path) > 1:
        holder["more\n"] = 1
    else:
        holder[key] = new
    return ".".join(map(str, path)), new


def in_json(rng, run, outside):
    """Change one value of a JSON file, or write something that is hardly JSON."""
    path = rng.choice([p for p in _files(run) if p.suffix == ".json"] or [run / "status.json"])
    text = rng.choice(
        ["[" * 200_000, "NaN", '{"a": 1, "a": 2}', "9" * 5000, '"\\ud800"', "{}", "[]", "null", None, None, None, None]
    )
    if text is None:
        try:
            document = {"": json.loads(path.read_text())}
        except ValueError as error:
            raise FileNotFoundError from error
        where, to = changed(rng, document)
        path.write_text(json.dumps(document[""]))
        return f"{path.name}: {where} = {to!r:.60}"
    path.write_text(text)
    return f"{path.name}: {text[:30]}"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def as_text(rng, run, outside):
    """Write text into a file that a person may have edited."""
    path = rng.choice([run / "config.yaml", run / "status.json", run / "shown", run / "lock", *_files(run)])
    text = rng.choice([BOMB, "", "\0", "!!python/object/apply:os.system [id]\n", "- 1\n", "space: {name: 2001-01-01}\n",
                       "\ufeffa: 1", "é" * 10_000, "1\n2\n3\n", "-1\n9999999999999\n1.5\n", "[" * 100_000])  # fmt: skip
    path.write_text(text)
    return f"{path.name}: the text {text[:30]!r}"


def as_size(rng, run, outside):
    """Make a file huge, without taking room on the disk."""
    path = _file(rng, run) if rng.random() < 0.7 else run / rng.choice(EXTRA)
    size = rng.choice([2**31, 2**36, 2**42])
    if not path.parent.is_dir():
        raise FileNotFoundError
    with path.open("ab") as file:
        file.truncate(size)
    return f"{path.name}: {size} bytes"
