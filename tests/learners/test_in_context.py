"""In-context learning against transformers' own forward pass on the strings a person would write."""

import re

import numpy as np
import pytest
import torch
from installed import marked
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
)  # fmt: skip

from nas_meta.errors import ConfigError, TrialError
from nas_meta.learners.in_context import InContext, InContextOptions
from nas_meta.models import causal_lm
from nas_meta.models.causal_lm import label_log_probabilities, language_model
from nas_meta.models.compute import Compute
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.tasks.prompts import CONTENT_FREE, with_prompts
from nas_meta.tasks.sources.files import FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer
from search_spaces.pretrained.causal_lm import CausalStates

TEMPLATE = "text: {text}\nlabel: {label}\n\n"
SHAPE = EpisodeShape(3, 2, 2)


def model_in(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def pool(folders, labelled_texts):
    return pool_of(folders["gpt2"], labelled_texts)


def pool_of(folder, labelled_texts, template=TEMPLATE, max_tokens=32):
    tokenizer = load_tokenizer(str(folder))
    tasks = load_tasks(JSONLines(FileOptions(path=labelled_texts)), tokenizer, max_tokens)
    return with_prompts(tasks, tokenizer, [template], max_tokens)["meta-train"]


def learner(**options):
    return InContext(InContextOptions(**options))


def encoder_of(folder):
    return Encoder(CausalStates(model_in(folder))).eval()


def written(pool, task, options):
    """The examples of an episode's prompt as text, in the order of the episode."""
    shots = task.support.shape[1] if options.shots_in_prompt is None else options.shots_in_prompt
    order = np.random.default_rng([options.order_seed, *task.indices]).permutation(shots * len(task.support))
    chosen = task.support[:, :shots].ravel()[order]
    return "".join(f"text: {pool.texts[i]}\nlabel: {pool.classes[pool.labels[i]]}\n\n" for i in chosen)


def by_hand(folder, prompt, labels):
    """For each label the log-probabilities of its tokens behind a prompt, from a pass over the whole string."""
    model, tokenizer = model_in(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for label in labels:
        ids = tokenizer(f"{prompt} {label}", return_tensors="pt")["input_ids"]
        first = len(tokenizer(prompt)["input_ids"])
        assert ids[0, :first].tolist() == tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            told = model(ids).logits[0].log_softmax(-1)
        found.append(told[range(first - 1, ids.shape[1] - 1), ids[0, first:]])
    return found


def names(pool, task):
    return [pool.classes[pool.labels[row[0]]] for row in task.support]


def test_the_pieces_of_a_prompt_are_the_tokens_of_the_whole_string(folders, pool):
    task = episode(pool, SHAPE, 3, 0)
    tokenizer = AutoTokenizer.from_pretrained(folders["gpt2"])
    options = InContextOptions()
    tokens = learner().examples(pool, task, language_model(CausalStates(model_in(folders["gpt2"]))), 0)
    assert tokens.tolist() == tokenizer(written(pool, task, options))["input_ids"]
    assert len(tokens) > 100


@pytest.mark.parametrize("family", marked(["gpt2", "untied", "qwen3"], ["untied"]))
@pytest.mark.parametrize("score", ["mean", "sum"])
def test_logits_are_the_log_probabilities_of_the_labels_in_the_whole_string(family, score, folders, pool):
    task = episode(pool, SHAPE, 3, 1)
    asked = learner(score=score)
    logits = asked.classify(encoder_of(folders[family]), pool, task)
    prompt = written(pool, task, asked.options)
    assert logits.shape == (6, 3)
    for row, i in zip(logits, task.query.ravel(), strict=True):
        tokens = by_hand(folders[family], f"{prompt}text: {pool.texts[i]}\nlabel:", names(pool, task))
        assert min(map(len, tokens)) > 1
        expected = [t.mean() if score == "mean" else t.sum() for t in tokens]
        torch.testing.assert_close(row, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_zero_shot_has_no_examples_in_its_prompt(folders, pool):
    task = episode(pool, SHAPE, 3, 2)
    logits = learner(shots_in_prompt=0).classify(encoder_of(folders["qwen3"]), pool, task)
    for row, i in zip(logits, task.query.ravel(), strict=True):
        tokens = by_hand(folders["qwen3"], f"text: {pool.texts[i]}\nlabel:", names(pool, task))
        torch.testing.assert_close(row, torch.stack([t.mean() for t in tokens]), atol=1e-4, rtol=1e-4)


def test_contextual_calibration_divides_by_the_probabilities_without_content(folders, pool):
    task = episode(pool, SHAPE, 3, 3)
    asked = learner(calibration="contextual", score="sum", shots_in_prompt=1)
    logits = asked.classify(encoder_of(folders["untied"]), pool, task)
    prompt = written(pool, task, asked.options)

    def p(text):
        said = by_hand(folders["untied"], f"{prompt}text: {text}\nlabel:", names(pool, task))
        return torch.stack([t.sum() for t in said]).softmax(0)

    empty = torch.stack([p(text) for text in CONTENT_FREE]).mean(0)
    assert CONTENT_FREE == ("N/A", "[MASK]", "")
    for row, i in zip(logits, task.query.ravel(), strict=True):
        torch.testing.assert_close(row, (p(pool.texts[i]) / empty).log(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "untied", "qwen3"])
def test_the_loss_of_an_episode_is_that_of_transformers_on_the_labels_alone(family, folders, pool):
    """MetaICL's loss and its gradients equal a language model's with ``labels=-100`` everywhere else."""
    task = episode(pool, SHAPE, 4, 0)
    asked, encoder = learner(steps=1), encoder_of(folders[family])
    loss = asked.meta_loss(encoder, pool, task)
    loss.backward()
    model, tokenizer = model_in(folders[family]), AutoTokenizer.from_pretrained(folders[family])
    prompt = written(pool, task, asked.options)
    rows = []
    for i in task.query.ravel():
        before = tokenizer(f"{prompt}text: {pool.texts[i]}\nlabel:")["input_ids"]
        whole = tokenizer(f"{prompt}text: {pool.texts[i]}\nlabel: {pool.classes[pool.labels[i]]}")["input_ids"]
        rows.append((whole, [-100] * len(before) + whole[len(before) :]))
    longest = max(len(whole) for whole, _ in rows)
    ids = torch.tensor([whole + [0] * (longest - len(whole)) for whole, _ in rows])
    labels = torch.tensor([own + [-100] * (longest - len(own)) for _, own in rows])
    mask = torch.tensor([[1] * len(whole) + [0] * (longest - len(whole)) for whole, _ in rows])
    expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    for p, theirs in zip(encoder.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, theirs.grad, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_reading_the_examples_once_changes_nothing(family, folders):
    """One row with all labels behind a shared prompt gives what every string gives in a pass of its own."""
    model = model_in(folders[family])
    rng = np.random.default_rng(0)
    examples = rng.integers(3, 200, 30)
    queries = [rng.integers(3, 200, n) for n in (1, 7, 4, 20, 3)]
    labels = [[rng.integers(3, 200, n) for n in sizes] for sizes in ((1, 2), (5, 1), (3, 3), (1, 1), (2, 6))]
    expected = []
    with torch.no_grad():
        for query, own in zip(queries, labels, strict=True):
            for label in own:
                ids = torch.from_numpy(np.concatenate([examples, query, label]))[None]
                told = model(ids).logits[0].log_softmax(-1)[-len(label) - 1 : -1]
                expected.append(told[range(len(label)), ids[0, -len(label) :]].sum())
        lm = language_model(CausalStates(model))
        once = label_log_probabilities(lm, examples, queries, labels)
        each = label_log_probabilities(lm, examples, queries, labels, shared=False)
    torch.testing.assert_close(once, torch.stack(expected), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(each, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_many_queries_in_several_passes_are_scored_as_in_one(folders, pool, monkeypatch):
    task, encoder = episode(pool, EpisodeShape(3, 1, 4), 5, 0), encoder_of(folders["qwen3"])
    once = learner().classify(encoder, pool, task)
    monkeypatch.setattr(causal_lm, "TOKENS", 60)
    torch.testing.assert_close(learner().classify(encoder, pool, task), once, atol=1e-4, rtol=1e-4)


def test_layers_that_are_computed_again_give_the_same_gradients(folders, pool):
    task, grads = episode(pool, SHAPE, 6, 0), []
    for again in (False, True):
        model = CausalStates(model_in(folders["qwen3"])).train()
        encoder = Encoder(model, compute=Compute(gradient_checkpointing=again))
        learner(steps=1).meta_loss(encoder, pool, task).backward()
        grads.append([p.grad for p in model.parameters()])
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)


def test_the_order_of_the_examples_is_the_episodes_and_the_seeds(folders, pool):
    encoder, task = encoder_of(folders["gpt2"]), episode(pool, SHAPE, 3, 4)
    first = learner().classify(encoder, pool, task)
    assert torch.equal(first, learner().classify(encoder, pool, task))
    assert not torch.allclose(first, learner(order_seed=1).classify(encoder, pool, task), atol=1e-3)


def test_where_positions_are_few_every_class_gives_up_examples(folders, pool, labelled_texts):
    task = episode(pool, EpisodeShape(3, 4, 1), 3, 0)
    model = CausalStates(model_in(folders["gpt2"]))
    lengths = {k: len(learner(shots_in_prompt=k).examples(pool, task, language_model(model), 0)) for k in (1, 2, 3, 4)}
    model.config.max_position_embeddings = lengths[3] + 20
    assert len(learner().examples(pool, task, language_model(model), 20)) == lengths[3]
    assert len(learner().examples(pool, task, language_model(model), 21)) == lengths[2]
    with pytest.raises(TrialError, match=r"one example of each of 3 classes has \d+ tokens, but GPT2Model has \d+ pos"):
        learner().examples(pool, task, language_model(model), lengths[3])
    with pytest.raises(TrialError, match="a prompt with a query has"):
        learner(shots_in_prompt=0).examples(pool, task, language_model(model), 1000)


def test_long_texts_are_cut_and_classes_are_called_what_their_source_says(folders, labelled_texts, tmp_path):
    tokenizer = load_tokenizer(str(folders["gpt2"]))

    class Spoken(JSONLines):
        def spoken(self, name):
            return f"the {name}"

    tasks = load_tasks(Spoken(FileOptions(path=labelled_texts)), tokenizer, 3)
    pool = with_prompts(tasks, tokenizer, [TEMPLATE], 3)["meta-train"]
    prompts = pool.prompts[TEMPLATE]
    for i in (0, 5):
        start = tokenizer.decode(tokenizer(pool.texts[i])["input_ids"][:3])
        assert tokenizer.decode(prompts.texts[i]) == f"text: {start}\nlabel:"
    assert [tokenizer.decode(prompts.ends[c]) for c in (0, 1)] == [f" the {pool.classes[c]}\n\n" for c in (0, 1)]
    assert JSONLines(FileOptions(path=labelled_texts)).spoken("card_arrival") == "card arrival"


def test_what_cannot_work_is_one_sentence(tiny_model, folders, pool):
    with pytest.raises(TrialError, match="BertModel, which has no causal language-modelling head; expected a space"):
        learner().equip(AutoModel.from_pretrained(tiny_model))
    for family in ("gpt2", "untied", "qwen3"):
        model = CausalStates(model_in(folders[family]))
        with torch.no_grad():
            model.get_input_embeddings().weight *= 1000
        learner().equip(model)
    for template in ("{label}: {text}", "{text}", "{text} {label}", "{text}: {label} {label}"):
        with pytest.raises(ValueError, match=re.escape("expected {text} once and after it {label} once")):
            InContextOptions(template=template)
    with pytest.raises(ValueError, match="in-context does not compute"):
        InContextOptions(training={"word_swap": 0.1})
    with pytest.raises(TrialError, match="have no prompts"):
        learner(template="{text} = {label};").classify(encoder_of(folders["gpt2"]), pool, episode(pool, SHAPE, 0, 0))


def test_a_tokenizer_that_joins_the_label_to_what_is_in_front_is_refused(folders, labelled_texts):
    tokenizer = load_tokenizer(str(folders["gpt2"]))
    tasks = load_tasks(JSONLines(FileOptions(path=labelled_texts)), tokenizer, 16)
    with pytest.raises(ConfigError, match=r"merges the label 'class\d+' with the text before it"):
        with_prompts(tasks, joining(tokenizer), ["{text}\nit is the clas{label}"], 16)


def joining(tokenizer):
    """A tokenizer for which a whole line is one token."""

    class Lines:
        is_fast, bos_token_id = False, None

        def __call__(self, texts, **_):
            if isinstance(texts, str):
                return {"input_ids": [hash(texts)]}
            return {"input_ids": [[hash(line) % 1000 for line in text.splitlines()] for text in texts]}

    return Lines()
