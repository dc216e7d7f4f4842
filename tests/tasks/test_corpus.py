"""Corpora: what is read, in what order, what is refused and with which sentence; tokens on disk."""

import json
import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from words import WORDS

from nas_meta.errors import DataError, NasMetaError
from nas_meta.evaluation.pretraining.row_sampler import RowSampler, shuffled
from nas_meta.tasks.corpus import corpus, token_store
from nas_meta.tasks.corpus.corpus import comparison_key, open_corpus
from nas_meta.tasks.corpus.token_store import tokenise_corpus
from nas_meta.tasks.corpus.tokenizer_training import TrainedTokenizer, trained_tokenizer
from nas_meta.tasks.tokenization import load_tokenizer


@pytest.fixture
def tokenizer(tiny_model):
    return load_tokenizer(str(tiny_model))


def test_files_folders_and_json_lines_are_read_in_order(tmp_path):
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.md").write_text("third\n")
    (folder / "a.txt").write_text("first\n\n  second  \n")
    (folder / "deep" / "c.jsonl").write_text('{"text": "fourth"}\n\n{"text": ""}\n{"text": "fifth", "label": 1}')
    (folder / "image.png").write_bytes(b"\x89PNG")
    single = tmp_path / "notes.log"
    single.write_bytes("\N{ZERO WIDTH NO-BREAK SPACE}last".encode())
    corpus = open_corpus([folder, single])
    assert list(corpus) == ["first", "second", "third", "fourth", "fifth", "last"]
    assert list(corpus) == list(corpus)
    assert list(corpus.without(["SECOND", " fifth\n"])) == ["first", "third", "fourth", "last"]


def test_another_field_of_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"body": "a text"}))
    assert list(open_corpus([tmp_path], field="body")) == ["a text"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"text": "one"}\n{"txt": "two"}', r"a\.jsonl:2: there is no field 'text'; did you mean 'txt'\?"),
        ("a.jsonl", b'{"text": 3}', r"a\.jsonl:1: 'text' is int; expected a string"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"a\.jsonl:1: 'text' contains a lone surrogate"),
        ("a.jsonl", b"{broken", r"a\.jsonl:1: not JSON"),
        ("a.jsonl", b"[1]", r"a\.jsonl:1: a list; expected an object"),
        ("a.txt", b"fine\nand \xff not", r"a\.txt:2: not UTF-8 \(byte 4 of the line\); expected UTF-8 text"),
        ("a.jsonl", b'{"text": "\xff"}', r"a\.jsonl:1: not UTF-8"),
        ("a.txt", b" \n\n", "the corpus contains no text"),
    ],
)
def test_what_is_wrong_inside_a_file_is_one_sentence_with_its_line(name, content, words, tmp_path, tokenizer):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        tokenise_corpus(open_corpus([tmp_path / name]), tokenizer, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("tokens/*"))


def test_paths_that_hold_nothing_are_refused_before_anything_is_read(tmp_path):
    (tmp_path / "empty").mkdir()
    for paths, words in (
        ([tmp_path / "none.txt"], r"the corpus .*none\.txt cannot be read: No such file"),
        ([tmp_path / "empty"], "empty contains no text files; expected files that end in .txt"),
        (["/dev/zero"], "cannot be read: it is a pipe or a device"),
        ([], "the corpus has no paths"),
    ):
        with pytest.raises(DataError, match=words):
            open_corpus(paths)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30), min_size=1, max_size=6))
def test_lines_are_cut_between_characters_and_nothing_is_lost(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("lines") / "a.txt"
    file.write_bytes("\n".join(lines).encode())
    before, corpus.PART = corpus.PART, 8
    try:
        parts = list(corpus._lines(file))
    finally:
        corpus.PART = before
    kept = "".join("\n".join(lines).split("\n"))
    assert "".join(parts).replace("\n", "") == kept.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    assert all(len(part.encode()) <= 16 for part in parts)


def test_a_folder_of_datasets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs nas-meta[datasets]")
    both = datasets.DatasetDict({
        "train": datasets.Dataset.from_dict({"text": ["one", "two"], "label": [0, 1]}),
        "test": datasets.Dataset.from_dict({"text": ["three"], "label": [0]}),
    })  # fmt: skip
    both.save_to_disk(str(tmp_path / "both"))
    both["train"].save_to_disk(str(tmp_path / "one"))
    assert list(open_corpus([tmp_path / "both"])) == list(open_corpus([tmp_path / "one"])) == ["one", "two"]
    with pytest.raises(DataError, match=r"there is no field 'txt'; did you mean 'text'\?"):
        list(open_corpus([tmp_path / "one"], field="txt"))


def written(folder, lines):
    folder.mkdir(exist_ok=True)
    (folder / "corpus.txt").write_text("\n".join(lines))
    return open_corpus([folder])


def test_tokens_on_disk_are_those_of_the_tokenizer(tmp_path, tokenizer):
    lines = ["redfox bluecat", "goldbee", "grayowl pinkcat redbee"]
    found = tokenise_corpus(written(tmp_path / "c", lines), tokenizer, tmp_path / "cache")
    expected = [tokenizer(line)["input_ids"] for line in lines]
    assert found.tokens.tolist() == [i for row in expected for i in row]
    assert np.diff(found.offsets.astype(int)).tolist() == [4, 3, 5]
    assert (found.count, found.texts, found.tokens.dtype) == (12, 3, np.uint16)
    sent = pickle.loads(pickle.dumps(found, protocol=5))
    assert sent.tokens.tolist() == found.tokens.tolist() and sent.vocabulary.key == found.vocabulary.key


def test_a_corpus_is_tokenised_once_and_anew_when_it_changes(tmp_path, tokenizer, monkeypatch):
    calls = []
    write = token_store._write
    monkeypatch.setattr(token_store, "_write", lambda *a: calls.append(a) or write(*a))
    cache = tmp_path / "cache"
    first = tokenise_corpus(written(tmp_path / "c", ["redfox"]), tokenizer, cache)
    assert tokenise_corpus(written(tmp_path / "c", ["redfox"]), tokenizer, cache).key == first.key
    # Elsewhere, but the same texts.
    assert tokenise_corpus(written(tmp_path / "d", ["redfox"]), tokenizer, cache).key == first.key
    assert len(calls) == 1
    assert tokenise_corpus(written(tmp_path / "c", ["redfox", "bluecat"]), tokenizer, cache).key != first.key
    assert tokenise_corpus(written(tmp_path / "d", ["redfox"]).without(["x"]), tokenizer, cache).key == first.key
    assert len(calls) == 2


def test_what_does_not_travel_must_be_seen_by_the_node(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(token_store, "MAX_PICKLED_BYTES", 4)
    found = tokenise_corpus(written(tmp_path / "c", ["redfox bluecat"]), tokenizer, tmp_path / "cache")
    sent = pickle.dumps(found)
    assert pickle.loads(sent).tokens.tolist() == found.tokens.tolist()
    (found.folder / "tokens.bin").unlink()
    with pytest.raises(NasMetaError, match=r"expected NAS_META_CACHE to be a folder that every node can read"):
        _ = pickle.loads(sent).tokens


@pytest.mark.parametrize(("kind", "special"), [("wordpiece", 5), ("bpe", 1)])
def test_a_tokenizer_is_learned_once_and_tells_its_words(kind, special, tmp_path):
    rng = random.Random(0)
    corpus = written(tmp_path / "c", [" ".join(rng.choices(WORDS, k=8)) for _ in range(200)])
    folder = trained_tokenizer(corpus, TrainedTokenizer(train=300, kind=kind), tmp_path / "cache")
    assert trained_tokenizer(corpus, TrainedTokenizer(train=300, kind=kind), tmp_path / "cache") == folder
    learned = load_tokenizer(str(folder))
    assert len(learned) <= 300
    text = "redfox bluecat"
    ids = learned(text)["input_ids"]
    assert learned.decode(ids, skip_special_tokens=True).strip() == text
    vocabulary = tokenise_corpus(corpus, learned, tmp_path / "cache").vocabulary
    assert vocabulary.special.sum() == special
    ordinary = [i for i in ids if not vocabulary.special[i]]
    # The first token of a text begins a word, marked or not.
    assert 1 + sum(not vocabulary.continues[i] for i in ordinary[1:]) == 2


def test_splits_of_a_word_are_told_from_words(tmp_path):
    rng = random.Random(0)
    corpus = written(tmp_path / "c", [" ".join(rng.choices(WORDS, k=8)) for _ in range(200)])
    learned = load_tokenizer(str(trained_tokenizer(corpus, TrainedTokenizer(train=100), tmp_path / "cache")))
    vocabulary = tokenise_corpus(corpus, learned, tmp_path / "cache").vocabulary
    pieces = learned.tokenize("foxowl")
    assert len(pieces) > 1
    assert [bool(vocabulary.continues[i]) for i in learned.convert_tokens_to_ids(pieces)] == [
        False, *[True] * (len(pieces) - 1)
    ]  # fmt: skip


@given(st.integers(1, 5000), st.integers(0, 2**32), st.integers(0, 9))
def test_an_order_is_a_permutation(count, seed, epoch):
    order = shuffled(np.arange(count), count, (seed, epoch))
    assert sorted(order.tolist()) == list(range(count))
    assert (shuffled(np.arange(count), count, (seed, epoch)) == order).all()


def test_an_order_looks_random():
    order = shuffled(np.arange(10_000), 10_000, (1, 0))
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    assert (order == shuffled(np.arange(10_000), 10_000, (1, 1))).mean() < 0.01


def test_every_block_is_seen_once_an_epoch(tmp_path, tokenizer):
    corpus = tokenise_corpus(
        written(tmp_path / "c", [f"{a} {b}" for a in WORDS for b in WORDS]), tokenizer, tmp_path / "x"
    )
    rows = RowSampler(corpus, width=8, packed=True, seed=3)
    assert rows.count == corpus.count // 8
    seen = np.concatenate([rows.batch(step, 7)[0] for step in range(-(-2 * rows.count // 7))])
    blocks = {tuple(corpus.tokens[8 * i : 8 * i + 8].tolist()) for i in range(rows.count)}
    for epoch in range(2):
        part = seen[epoch * rows.count : (epoch + 1) * rows.count]
        assert {tuple(row) for row in part.tolist()} == blocks and len(part) == rows.count


def test_texts_are_cut_and_padded(tmp_path, tokenizer):
    corpus = tokenise_corpus(written(tmp_path / "c", ["redfox", " ".join(WORDS)]), tokenizer, tmp_path / "x")
    ids, mask = RowSampler(corpus, width=6, packed=False, seed=0).batch(0, 2)
    assert sorted(mask.sum(1).tolist()) == [3, 6]
    short = ids[mask.sum(1) == 3][0]
    assert short.tolist() == [*tokenizer("redfox")["input_ids"], *[tokenizer.pad_token_id] * 3]


def test_a_corpus_shorter_than_a_block_is_one_short_block(tmp_path, tokenizer):
    corpus = tokenise_corpus(written(tmp_path / "c", ["redfox"]), tokenizer, tmp_path / "x")
    ids, mask = RowSampler(corpus, width=64, packed=True, seed=0).batch(0, 2)
    assert ids.tolist() == [tokenizer("redfox")["input_ids"]] * 2 and mask.all()


@pytest.fixture(scope="module")
def starter():
    for name in ("simple_icd_10_cm", "botocore", "roget"):
        pytest.importorskip(name, reason="needs nas-meta[starter]")


@pytest.mark.slow
def test_the_default_corpus_holds_nothing_that_candidates_are_judged_on(starter, monkeypatch):
    import botocore.loaders

    from nas_meta.tasks.corpus import default_corpus
    from nas_meta.tasks.sources.icd10 import ICD10

    # Four of its 400 services are enough here, and a hundredth of the time.
    few = ["ec2", "s3", "iam", "rds"]
    monkeypatch.setattr(botocore.loaders.Loader, "list_available_services", lambda self, kind: few)
    source = ICD10()
    split = source.load()
    corpus = default_corpus.default_corpus(source, split)
    seen = {comparison_key(text) for text in corpus}
    held_out = {comparison_key(text) for text in default_corpus.held_out_texts(split)}
    assert len(held_out) > 4000 and not seen & held_out
    own = {comparison_key(text) for texts in split.splits["meta-train"].values() for text in texts}
    assert own <= seen
    # Longer codes of meta-train blocks are there, those of other blocks are not.
    import simple_icd_10_cm as cm

    def texts_of(blocks):
        return {comparison_key(text) for text in default_corpus.icd10_texts(blocks)}

    judged = {*split.splits["meta-validation"], *split.splits["meta-test"]}
    only_judged = texts_of(judged) - texts_of(split.splits["meta-train"])
    assert len(only_judged) > 15_000 and not seen & only_judged
    assert all(cm.is_block(block) for block in judged)


@pytest.mark.slow
def test_held_out_classes_of_botocore_are_not_in_the_default_corpus(starter, monkeypatch):
    import botocore.loaders

    from nas_meta.tasks.corpus.default_corpus import default_corpus
    from nas_meta.tasks.sources.botocore import Botocore

    few = ["ec2", "s3", "iam", "rds", "glue", "ssm", "iot", "sns"]
    monkeypatch.setattr(botocore.loaders.Loader, "list_available_services", lambda self, kind: few)
    source = Botocore()
    split = source.load()
    asked = []
    load = botocore.loaders.Loader.load_service_model
    monkeypatch.setattr(
        botocore.loaders.Loader,
        "load_service_model",
        lambda self, name, kind: asked.append(name) or load(self, name, kind),
    )
    list(default_corpus(source, split))
    assert set(asked) == set(split.splits["meta-train"])
