"""Few-shot tasks from unlabelled text: what is masked, who may see what, and that they can be learned from."""

import json
import re

import numpy as np
import pytest
import torch
from words import WORDS

from nas_meta import search
from nas_meta.core import plugins
from nas_meta.errors import ConfigError, DataError
from nas_meta.evaluation.pretraining.loop import make_loss, pretrain
from nas_meta.evaluation.pretraining.objectives.smlmt import WordEpisodes, word_index
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.tasks.corpus.corpus import open_corpus
from nas_meta.tasks.corpus.token_store import tokenise_corpus
from nas_meta.tasks.source import SPLITS
from nas_meta.tasks.sources.smlmt import SMLMT, SMLMTOptions, mask_word, masked_words, split_sentences
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

LINES = [
    "The cat sat on the mat. A dog saw the cat; Cats are not a cat!",
    "The owl and the cat sat near a dog.",
    "An owl saw the mat near the sea.",
    "Too short.",
]


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory):
    """Texts in which each topic's two words stand together: a masked word can be told from the other."""
    rng = np.random.default_rng(0)
    texts = []
    for topic in range(12):
        one, other = WORDS[2 * topic : 2 * topic + 2]
        for word in (one, other):
            for _ in range(40):
                rest = [WORDS[int(i)] for i in rng.integers(0, len(WORDS), 2)]
                row = [word, one, other, *rest, *rng.choice([one, other], 2).tolist()]
                texts.append(" ".join(row[int(i)] for i in rng.permutation(len(row))))
    file = tmp_path_factory.mktemp("unlabelled") / "texts.txt"
    file.write_text("\n".join(texts))
    return file


def test_every_occurrence_is_masked_without_regard_to_case():
    assert mask_word("The cat, the CAT's and a Cat.", "cat", 24, "[MASK]") == "The [MASK], the CAT's and a [MASK]."
    assert mask_word("The cat, the CAT's and a Cat.", "the", 24, "<mask>") == "<mask> cat, <mask> CAT's and a Cat."


def test_of_a_long_sentence_the_words_around_the_masked_one_stay():
    line = " ".join(f"word{'abcdefghij'[i]}" for i in range(10)) + "!"
    assert mask_word(line, "worde", 4, "[MASK]") == "wordc wordd [MASK] wordf"
    assert mask_word(line, "worda", 4, "[MASK]") == "[MASK] wordb wordc wordd"
    assert mask_word(line, "wordj", 4, "[MASK]") == "wordg wordh wordi [MASK]!"


def test_a_sentence_belongs_to_its_rarest_word_of_a_fitting_frequency():
    lines = list(split_sentences(LINES))
    assert lines[:3] == ["The cat sat on the mat.", "A dog saw the cat;", "Cats are not a cat!"]
    # By hand, of sentences with four words or more: the 4, cat 4, a 3, sat 2, mat 2, dog 2, saw 2, owl 2, near 2;
    # cats, are, not, on, and, an, sea 1 each. From two sentences to three, the rarest (of equals the first):
    found = masked_words(lines, 2, 3, 4, 24, "_")
    assert found == {
        "mat": ["The cat sat on the _.", "An owl saw the _ near the sea."],
        "dog": ["A _ saw the cat;", "The owl and the cat sat near a _."],
        "a": ["Cats are not _ cat!"],
    }


def test_words_and_sentences_of_the_splits_are_disjoint_and_no_word_is_seen(corpus_file):
    options = SMLMTOptions(corpus=str(corpus_file), min_examples=8, max_examples=300, split_seed=1)
    split = SMLMT(options).load()
    seen = [set(split.splits[name]) for name in SPLITS]
    assert all(seen) and not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    originals = set()
    for name in SPLITS:
        for word, texts in split.splits[name].items():
            assert len(texts) >= 8
            for text in texts:
                assert "[MASK]" in text and word not in re.findall(r"\w+", text)
                original = text.replace("[MASK]", word)
                assert original not in originals, "a sentence is in two classes"
                originals.add(original)
    assert split.splits == SMLMT(options).load().splits
    assert set(SMLMT(options.model_copy(update={"split_seed": 2})).load().splits["meta-train"]) != seen[0]


def test_a_mask_is_one_token_of_the_tokenizer(corpus_file, tiny_model):
    source = SMLMT(SMLMTOptions(corpus=str(corpus_file), min_examples=8, max_examples=300))
    tokenizer = load_tokenizer(str(tiny_model))
    pool = load_tasks(source, tokenizer, 16)["meta-train"]
    vocabulary = tokenizer.get_vocab()
    for text in range(len(pool.texts)):
        ids = pool.tokens[pool.offsets[text] : pool.offsets[text + 1]]
        assert tokenizer.mask_token_id in ids
        assert vocabulary[pool.classes[pool.labels[text]]] not in ids


def test_the_plugin_feeds_any_learner(corpus_file, small_config, tmp_path):
    assert plugins.load("tasks", "smlmt") is SMLMT
    small_config["tasks"] = {
        "source": "smlmt", "corpus": str(corpus_file), "min_examples": 8, "max_examples": 300,
        "ways": 3, "shots": 1, "queries": 3,
    }  # fmt: skip
    small_config |= {"learner": {"name": "ridge", "head": "none", "steps": 2}, "budget": {"trials": 2}}
    run = search(small_config, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 2


def test_wrong_options_are_sentences(tmp_path):
    with pytest.raises(ValueError, match="max_examples is 3; expected at least min_examples, which is 20"):
        SMLMTOptions(max_examples=3)
    with pytest.raises(DataError, match=r"the corpus .*none.txt cannot be read"):
        SMLMT(SMLMTOptions(corpus=str(tmp_path / "none.txt"))).load()
    with pytest.raises(
        ValueError, match="batch is 9, but smlmt needs 2 to 20 texts for each of its 5 words; expected batch: 10 to 100"
    ):
        PretrainingSection(objective="smlmt", batch=9)


@pytest.fixture
def token_file(corpus_file, tiny_model, tmp_path):
    return tokenise_corpus(open_corpus([corpus_file]), load_tokenizer(str(tiny_model)), tmp_path / "cache")


def test_words_are_found_where_they_stand(token_file, monkeypatch):
    monkeypatch.setattr("nas_meta.evaluation.pretraining.objectives.smlmt.MAX_SHARE", 0.2)
    index = word_index(token_file)
    rows = [token_file.tokens[a:b] for a, b in zip(token_file.offsets[:-1], token_file.offsets[1:], strict=True)]
    vocabulary = token_file.vocabulary
    counts = {t: sum(t in row for row in rows) for t in vocabulary.ordinary.tolist()}
    assert set(index) == {t for t, n in counts.items() if 20 <= n <= 0.2 * len(rows)}
    for word, texts in index.items():
        assert texts.tolist() == [i for i, row in enumerate(rows) if word in row]


def test_an_episode_hides_each_word_in_texts_of_its_own(token_file, monkeypatch):
    monkeypatch.setattr("nas_meta.evaluation.pretraining.objectives.smlmt.MAX_SHARE", 1.0)
    rows = WordEpisodes(token_file, 8, False, 3, ways=4)
    ids, mask = rows.batch(0, 13)
    assert ids.shape == mask.shape and len(ids) == 4 * 3 and ids.shape[1] <= 8
    vocabulary = token_file.vocabulary
    assert ((ids == vocabulary.mask).sum(1) >= 1).all()
    assert (ids[:, 0] == ids[0, 0]).all() and ids[0, 0] == token_file.tokens[0], "a cut text keeps what it begins with"
    # Which word it is follows from the corpus: of the texts that are the row but for one word.
    originals = {}
    for word, texts in rows.texts_of.items():
        for text in texts:
            originals.setdefault(rows._masked(text, word).tobytes(), set()).add(word)
    told = [originals[row[m.astype(bool)].tobytes()] for row, m in zip(ids, mask, strict=True)]
    words = [set.intersection(*told[i : i + 3]) for i in range(0, 12, 3)]
    assert all(words), "three texts hide one word"
    for group, some in enumerate(words):
        assert not set(some) & set(ids[3 * group : 3 * group + 3].ravel())
    again, other = rows.batch(0, 13)[0], rows.batch(1, 13)[0]
    assert np.array_equal(again, ids) and not np.array_equal(other, ids)


def test_too_small_a_corpus_and_a_tokenizer_without_a_mask_are_sentences(tiny_model, token_file, tmp_path):
    small = tmp_path / "small.txt"
    small.write_text("redfox bluecat\n" * 3)
    few = tokenise_corpus(open_corpus([small]), load_tokenizer(str(tiny_model)), tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"tasks of 5 words, but the corpus has 0 that occur in 20 to 20 texts"):
        WordEpisodes(few, 8, False, 0, ways=5)
    from dataclasses import replace

    from transformers import AutoModel

    unmasked = replace(token_file, vocabulary=replace(token_file.vocabulary, mask=None))
    section = PretrainingSection(objective="smlmt", block=16)
    with pytest.raises(ConfigError, match="smlmt replaces words by a mask token, but the tokenizer has none"):
        make_loss(AutoModel.from_pretrained(tiny_model), unmasked, section, "mean")


def test_the_loss_is_that_of_a_prototypical_network(token_file, tiny_model, monkeypatch):
    from transformers import AutoModel

    monkeypatch.setattr("nas_meta.evaluation.pretraining.objectives.smlmt.MAX_SHARE", 1.0)
    model = AutoModel.from_pretrained(tiny_model).eval()
    section = PretrainingSection(objective="smlmt", block=16, batch=8, ways=2)
    objective = make_loss(model, token_file, section, "mean")
    ids, mask = map(torch.from_numpy, objective.rows(token_file, 0).batch(0, 8))
    with torch.no_grad():
        loss = objective(model, ids, mask).item()
        z = [model(i[m > 0][None]).last_hidden_state.mean(1)[0] for i, m in zip(ids, mask, strict=True)]
        z = [v / v.norm() for v in z]
        by_hand = []
        for label, word in enumerate((0, 4)):
            for query in range(word + 1, word + 4):
                near = [-10 * (z[query] - z[support]).square().sum().item() for support in (0, 4)]
                by_hand.append(np.log(np.exp(near).sum()) - near[label])
    assert loss == pytest.approx(np.mean(by_hand), rel=1e-4)


def test_a_model_learns_to_tell_masked_words(tiny_model, tmp_path, monkeypatch):
    """In texts of two words alone a masked one is told by the other, ever better."""
    from transformers import AutoModel

    pairs = [WORDS[2 * i : 2 * i + 2] for i in range(12)]
    lines = [" ".join([one] * i + [other] * j) for one, other in pairs for i in range(1, 8) for j in range(1, 8)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    token_file = tokenise_corpus(open_corpus([tmp_path]), load_tokenizer(str(tiny_model)), tmp_path / "cache")

    monkeypatch.setattr("nas_meta.evaluation.pretraining.objectives.smlmt.MAX_SHARE", 1.0)
    torch.manual_seed(0)
    model = AutoModel.from_pretrained(tiny_model)
    section = PretrainingSection(objective="smlmt", block=16, batch=32, ways=4, steps=60, lr=3e-3)
    objective = make_loss(model, token_file, section, "mean")
    looks = list(pretrain(model, objective, token_file, section, 0))
    assert looks[-1].loss < 0.6 * looks[0].loss
    assert "pretrain/perplexity" not in looks[-1].values(section)


def test_candidates_are_pre_trained_by_smlmt_before_they_are_meta_trained(
    corpus_file, small_config, tmp_path, monkeypatch
):
    monkeypatch.setattr("nas_meta.evaluation.pretraining.objectives.smlmt.MAX_SHARE", 1.0)
    small_config |= {
        "budget": {"trials": 2},
        "pretraining": {"objective": "smlmt", "corpus": str(corpus_file), "steps": 3, "block": 16, "batch": 10},
    }
    run = search(small_config, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 2
    assert json.dumps(run.config.document["pretraining"]).count("smlmt") == 1
    assert all("pretrain_seconds" in t.metrics for t in run.trials)
