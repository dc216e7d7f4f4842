"""Distillation from a model that the config names."""

import numpy as np
import pytest
import torch

from nas_meta import NasMetaError, search
from nas_meta.config import teacher
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.evaluation.trial import result_of
from nas_meta.learners.training.regularisation import teacher_distance


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Folder of a wider BERT with a tokenizer of its own: it knows the words in another order."""
    from transformers import BertConfig, BertModel, BertTokenizerFast
    from words import WORDS

    folder = tmp_path_factory.mktemp("large-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *reversed(WORDS)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    return folder


def targets(document):
    """The texts of meta-train and what distillation aims at."""
    resolved = resolve(document)
    space, tasks, shape = load_problem(resolved)
    pool = make_evaluation(resolved, space, tasks, shape, 1).tasks["meta-train"]
    return pool.texts, pool.teacher


def test_the_teacher_reads_the_texts_with_its_own_tokenizer(small_config, large):
    from transformers import AutoModel, AutoTokenizer

    small_config["learner"]["training"] = {"distill": {"model": str(large)}}
    texts, found = targets(small_config)
    model, tokenizer = AutoModel.from_pretrained(large).eval(), AutoTokenizer.from_pretrained(large)
    inputs = tokenizer(list(texts[:20]), padding=True, return_tensors="pt")
    with torch.no_grad():
        states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][:, :, None]
    expected = (states * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(found[:20], expected.numpy(), atol=1e-5)


def test_its_embeddings_are_computed_once_and_anew_for_other_texts(small_config, large, tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_META_CACHE", str(tmp_path / "cache"))
    small_config["learner"]["training"] = {"distill": {"model": str(large), "weight": 2.0}}
    calls, embeddings = [], teacher.embeddings
    monkeypatch.setattr(teacher, "embeddings", lambda *arguments: calls.append(1) or embeddings(*arguments))
    _, first = targets(small_config)
    _, again = targets(small_config)
    assert len(calls) == 1 and np.array_equal(first, again)
    (file,) = (tmp_path / "cache" / "teachers").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(targets(small_config)[1], first) and len(calls) == 2  # a damaged file is made anew
    small_config["tasks"]["max_tokens"] = 4
    assert not np.array_equal(targets(small_config)[1], first) and len(calls) == 3


def whole(space):
    return space.canonical({name: max(choice.values) for name, choice in space.table.items()})


@pytest.mark.parametrize("learner", ["protonet", "anil"])
def test_a_teacher_that_is_trained_first_is_the_whole_model_trained_as_a_trial(learner, small_config):
    small_config["learner"] = {"name": learner, "steps": 4, "lr": 1e-3}
    resolved = resolve(small_config)
    space, tasks, shape = load_problem(resolved)
    evaluation, pool = make_evaluation(resolved, space, tasks, shape, 1), tasks["meta-train"]
    weights = result_of(evaluation.trial(whole(space), small_config["seed"], keep_above=0.0)).weights
    with torch.no_grad():
        expected = evaluation.restored(whole(space), bytes(weights)).eval().embed(pool, np.arange(len(pool)))
    small_config["learner"]["training"] = {"distill": {"trained": True}}
    _, found = targets(small_config)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    small_config["learner"]["training"] = {"distill": 1.0}
    assert np.abs(targets(small_config)[1] - found).max() > 1e-3


def test_a_teacher_is_trained_once_and_anew_for_another_training(small_config, tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_META_CACHE", str(tmp_path / "cache"))
    small_config["learner"]["training"] = {"distill": {"trained": True}}
    calls, train = [], teacher.Training.__call__
    monkeypatch.setattr(teacher.Training, "__call__", lambda *arguments: calls.append(1) or train(*arguments))
    first, again = (targets(small_config)[1] for _ in range(2))
    assert len(calls) == 1 and np.array_equal(first, again)
    for section, key, value in (("learner", "steps", 5), ("tasks", "train_ways", 4)):
        small_config[section] |= {key: value}
        targets(small_config)
    assert len(calls) == 3
    small_config["learner"]["training"] = {"distill": {"trained": True, "weight": 3.0}}
    targets(small_config)
    assert len(calls) == 3, "the weight is the student's"


def test_a_teacher_of_another_family_is_trained_on_its_own_tokens(small_config, large):
    small_config["learner"]["training"] = {"distill": {"model": str(large)}}
    untrained = targets(small_config)[1]
    small_config["learner"]["training"]["distill"]["trained"] = True
    trained = targets(small_config)[1]
    assert trained.shape == untrained.shape and np.abs(trained - untrained).max() > 1e-3


def test_a_teacher_that_cannot_be_trained_is_a_sentence(small_config):
    small_config["learner"] |= {"lr": 1e30, "training": {"distill": {"trained": True}}}
    with pytest.raises(NasMetaError, match=r"learner\.training\.distill: the teacher cannot be meta-trained: .* lower"):
        targets(small_config)


@pytest.mark.slow
def test_a_search_with_a_teacher_resumes(small_config, large, tmp_path):
    small_config["learner"]["training"] = {"distill": {"model": str(large), "weight": 5.0}}
    small_config["budget"] = {"trials": 2}
    run = search(small_config, tmp_path / "run", inline=True)
    assert run.config.options["learner"].training.distill.model == str(large)
    again = search(small_config | {"budget": {"trials": 3}}, tmp_path / "run", inline=True, resume=True)
    assert [t.status for t in again.trials] == ["completed"] * 3


def test_training_draws_similarities_towards_the_teachers(small_config, large):
    """Embeddings of other widths are compared by their pairwise cosines."""
    embeddings = []
    for weight in (0.0, 200.0):
        training = {"distill": {"model": str(large), "weight": weight}, "dropout": 0.0, "decay": "none"}
        small_config["learner"] = {"steps": 40, "lr": 1e-3, "training": training}
        resolved = resolve(small_config)
        space, tasks, shape = load_problem(resolved)
        evaluation = make_evaluation(resolved, space, tasks, shape, 1)
        architecture = whole(space)
        weights = result_of(evaluation.trial(architecture, 0, keep_above=0.0)).weights
        student, pool = evaluation.restored(architecture, bytes(weights)).eval(), tasks["meta-train"]
        with torch.no_grad():
            z = student.embed(pool, np.arange(len(pool)))
        embeddings.append(z)
    aim = torch.from_numpy(targets(small_config)[1])
    before, after = (teacher_distance(z, aim).item() for z in embeddings)
    assert after < 0.8 * before


@pytest.mark.parametrize(
    ("distill", "words"),
    [
        ({"model": "/nowhere/at/all"}, "cannot be loaded"),
        ({"modle": "starter:mpnet"}, "modle.*model"),
        ({"model": "starter:mpnet", "weight": -1}, "weight"),
        (-1, "distill"),
    ],
)
def test_a_teacher_that_cannot_be_one_is_a_sentence(distill, words, small_config, tmp_path):
    small_config["learner"]["training"] = {"distill": distill}
    with pytest.raises(NasMetaError, match=words) as error:
        search(small_config, tmp_path / "run", inline=True)
    assert "learner.training.distill" in str(error.value)
