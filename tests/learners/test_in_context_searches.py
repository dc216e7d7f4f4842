"""In-context learning in trials and searches, and by a model that learned to copy."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)  # fmt: skip
from typer.testing import CliRunner

from nas_meta import search
from nas_meta.cli.main import app
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError, TrialError
from nas_meta.evaluation.trial import result_of
from nas_meta.learners.in_context import InContext, InContextOptions
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import EpisodeShape, episodes
from nas_meta.tasks.pool import Pool, Tasks
from nas_meta.tasks.prompts import with_prompts
from search_spaces.pretrained.causal_lm import CausalStates

TEMPLATE = "text: {text}\nlabel: {label}\n\n"


def config_of(small_config, folder, **learner_section):
    small_config["space"] = {
        "name": "decoder-subnet", "model": str(folder), "groups": [1.0], "heads": [1.0, 0.67], "ffn": [1.0, 0.5],
        "importance_episodes": 2, "min_layers": 2,
    }  # fmt: skip
    small_config["learner"] = {"name": "in-context", **learner_section}
    small_config["evaluation"] = {"compare": False, "episodes": 4, "test_episodes": 4}
    small_config["budget"] = {"trials": 2}
    return small_config


@pytest.mark.slow
def test_trials_in_context_learn_and_may_choose_their_template(small_config, folders):
    templates = [TEMPLATE, "{text} is a {label};"]
    resolved = resolve(config_of(small_config, folders["qwen3"], steps=2, lr=1e-2, template={"choice": templates}))
    space, tasks, shape = load_problem(resolved)
    assert set(tasks["meta-test"].prompts) == set(templates)
    evaluation = make_evaluation(resolved, space, tasks, shape, 1)
    values = dict(space.sample(np.random.default_rng(0)).values)
    found = []
    for template in templates:
        trial = evaluation.trial(space.architecture(values | {"learner.template": template}), 0)
        losses = [next(trial).values["loss"] for _ in range(2)]
        found.append((losses, result_of(trial).metrics))
    (first, metrics), (second, _) = found
    assert first != second and metrics["trained_params"] > 0 and 0 <= metrics["accuracy"] <= 1


@pytest.mark.slow
def test_a_model_without_a_head_fails_before_it_is_trained(small_config):
    resolved = resolve(small_config | {"learner": {"name": "in-context", "steps": 2}})
    space, tasks, shape = load_problem(resolved)
    trial = make_evaluation(resolved, space, tasks, shape, 1).trial(space.sample(np.random.default_rng(0)), 0)
    with pytest.raises(TrialError, match="needs a causal language model, but the space builds a BertModel"):
        next(trial)


@pytest.mark.slow
def test_a_search_in_a_space_without_heads_is_refused_before_its_first_trial(small_config, tmp_path):
    with pytest.raises(ConfigError, match="BertModel, which has no causal language-modelling head; expected a space"):
        search(small_config | {"learner": {"name": "in-context"}}, tmp_path / "run", inline=True)
    assert not (tmp_path / "run" / "journal.sqlite").exists()


@pytest.mark.slow
def test_a_search_with_prompts_exports_and_evaluates_to_the_same_accuracy(small_config, folders, tmp_path):
    file, run, out = tmp_path / "c.yaml", str(tmp_path / "run"), tmp_path / "out"
    file.write_text(yaml.safe_dump(config_of(small_config, folders["qwen3"], steps=2, lr=1e-3)))

    def called(*arguments):
        done = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == 0, done.output
        return done.output

    called("search", file, "--run-dir", run, "--inline")
    called("export", run, "--to", out)
    said = called("evaluate", out, "--config", out / "nas_meta.yaml", "--episodes", 4, "--json")
    best = json.loads(called("best", run, "--json"))
    assert json.loads(said)["accuracy"] == pytest.approx(best["test_accuracy"])
    model = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert sum(p.numel() for p in model.parameters()) == best["metrics"]["params"]


def copying_model(classes):
    """A Llama of two layers that learned to continue ``a b c d a`` with ``b``, pairs drawn anew in every sequence."""
    torch.manual_seed(0)
    width, pairs, vocabulary = 64, 18, 2 + 2 * classes
    shape = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(**shape, **tokens, max_position_embeddings=64, tie_word_embeddings=True))
    with torch.no_grad():  # a start from which attention by content is found in seconds
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.5)
        for layer in model.model.layers:
            for linear in (layer.self_attn.v_proj, layer.self_attn.o_proj):
                linear.weight.copy_(0.7 * torch.eye(width))
        for linear in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            linear.weight.copy_(1.2 * torch.eye(width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    right = 0.0
    for _ in range(1500):
        texts, names = (2 + i * classes + torch.rand(32, classes).argsort(1)[:, :3] for i in (0, 1))
        which = torch.cat([torch.rand(32, 3).argsort(1), torch.randint(3, (32, pairs - 3))], 1)
        ids = torch.stack([texts.gather(1, which), names.gather(1, which)], 2).flatten(1)
        logits = model(ids[:, :-1]).logits[:, 6::2].flatten(0, 1)
        targets = ids[:, 7::2].flatten()
        optimizer.zero_grad()
        F.cross_entropy(logits, targets).backward()
        optimizer.step()
        right = 0.9 * right + 0.1 * (logits.argmax(1) == targets).float().mean().item()
        if right > 0.97:
            break
    return model.eval()


@pytest.mark.slow
def test_a_model_that_learned_to_copy_classifies_in_context_and_guesses_without():
    """The names of the classes are arbitrary: they can be read off the prompt and nowhere else."""
    classes = 16
    vocabulary = ["<pad>", "<unk>", *(f"w{c}:" for c in range(classes)), *(f"n{c}" for c in range(classes))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")
    # Both texts of a class are the same word.
    labels, ids = np.repeat(np.arange(classes), 2), np.repeat(np.arange(classes) + 2, 2).astype(np.int32)
    pool = Pool([f"n{c}" for c in range(classes)], [f"w{c}" for c in labels], labels, ids, np.arange(33), ids * 0)
    template = "{text}: {label} "
    pool = with_prompts(Tasks({"meta-test": pool}), tokenizer, [template], 8)["meta-test"]
    assert [pool.prompts[template].texts[6].tolist(), pool.prompts[template].ends[3].tolist()] == [[5], [21]]
    tasks = list(episodes(pool, EpisodeShape(3, 1, 1), 0, 100))
    encoder = Encoder(CausalStates(copying_model(classes)))
    in_context = InContext(InContextOptions(template=template)).accuracies(encoder, pool, tasks)
    without = InContext(InContextOptions(template=template, shots_in_prompt=0)).accuracies(encoder, pool, tasks)
    assert in_context.mean() > 0.85
    assert abs(without.mean() - 1 / 3) < 0.15
