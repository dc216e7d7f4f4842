"""Pre-training within a search: each once, inherited, killed and gone on with; and of one model alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from command_line import nas_meta
from killing import killed_often, results
from tiny_space import PLUGIN
from transformers import AutoModel

from nas_meta import Architecture, load_run, search
from nas_meta.config.problem import make_space
from nas_meta.config.resolved import resolve
from nas_meta.controller.start import Start
from nas_meta.controller.weight_pool import WeightPool
from nas_meta.errors import ConfigError, NasMetaError, RunError
from nas_meta.evaluation.pretraining.row_sampler import RowSampler
from nas_meta.evaluation.pretraining.stage import Pretraining
from nas_meta.evaluation.pretraining.weight_inheritance import nearest
from nas_meta.journal.database import Journal
from nas_meta.journal.pretraining_record import FOLDER
from nas_meta.journal.records import Trial
from nas_meta.models.compute import Compute
from nas_meta.models.state import deserialize_state, serialize_state
from nas_meta.outputs.rerun import rerun
from nas_meta.space.architecture import Choice
from nas_meta.tasks.corpus.corpus import open_corpus
from nas_meta.tasks.corpus.token_store import tokenise_corpus
from nas_meta.tasks.tokenization import load_tokenizer


def made_corpus(document, folder):
    tokenizer = load_tokenizer(load_space(document).tokenizer)
    return tokenise_corpus(open_corpus([document["pretraining"]["corpus"]]), tokenizer, folder / "cache")


def load_space(document):
    return make_space(resolve(document))


def new(folder):
    folder.mkdir()
    return folder


@pytest.fixture
def document(small_config, tiny_model, corpus, tmp_path):
    plugin = tmp_path / "tiny_space.py"
    plugin.write_text(PLUGIN.format(tokenizer=str(tiny_model)))
    return small_config | {
        "space": {"name": f"{plugin}:Tiny"},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 10, "test_episodes": 10, "compare": False},
        "budget": {"trials": 4},
        "pretraining": {"corpus": str(corpus), "steps": 12, "batch": 4, "block": 16, "lr": 3e-3},
    }


def test_the_time_of_pre_training_can_be_an_objective(document, tmp_path):
    document |= {"objectives": {"pretrain_seconds": "minimize", "accuracy": "maximize"}, "budget": {"trials": 1}}
    run = search(document, tmp_path / "run", inline=True)
    assert [o.metric for o in run.objectives] == ["pretrain_seconds", "accuracy"]
    assert nas_meta("best", tmp_path / "run").returncode == 0


def test_a_candidate_is_pre_trained_before_it_is_meta_trained(document, tmp_path):
    run = search(document, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 4
    assert all(t.metrics["pretrain_seconds"] > 0 and t.fidelity == 4 for t in run.trials)
    log = (tmp_path / "run" / "logs" / "trial-0001.log").read_text()
    assert "step 12  pretrain/loss" in log and "pretrain/perplexity" in log and "step 4  loss" in log
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((tmp_path / "run" / "tensorboard").glob("trial-0001-*"))))
    events.Reload()
    assert {"pretrain/loss", "pretrain/perplexity", "meta-train/loss"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("pretrain/loss")] == [10, 12]
    plain = search({k: v for k, v in document.items() if k != "pretraining"}, tmp_path / "plain", inline=True)
    assert "pretrain_seconds" not in plain.trials[0].metrics
    assert [t.architecture for t in plain.trials] == [t.architecture for t in run.trials]
    kept = plain.trials[0].id
    one, other = (deserialize_state(r.weights_of(r.trial(r.best.id))) for r in (run, plain))
    assert kept and any(not torch.equal(one[n], other[n]) for n in one if n in other and one[n].shape == other[n].shape)


@pytest.mark.slow
def test_equal_architectures_are_pre_trained_once(document, tmp_path):
    document["learner"] = {"name": "protonet", "steps": 2, "lr": {"choice": [1e-3, 1e-4, 1e-5]}}
    document["strategy"] = {"name": "grid"}
    document["budget"] = {"trials": 9}
    run = search(document, tmp_path / "run", inline=True)
    by_key = {}
    for trial in run.trials:
        shape = tuple(v for n, v in sorted(trial.architecture.items()) if not n.startswith("learner."))
        by_key.setdefault(run.pretrained(trial.id)["key"], []).append((shape, trial.metrics["pretrain_seconds"]))
    files = {p.stem for p in (tmp_path / "run" / FOLDER).iterdir()}
    assert files == set(by_key) and 1 <= len(files) < 9
    for shared in by_key.values():
        assert len({shape for shape, _ in shared}) == 1
        assert [seconds > 0 for _, seconds in shared] == [True, *[False] * (len(shared) - 1)]


@pytest.mark.slow
def test_weights_that_were_found_train_as_those_that_were_made(document, tmp_path):
    run = search(document, tmp_path / "run", inline=True)
    first = run.trials[0]
    opened = load_run(tmp_path / "run", allow_plugins=True)
    assert rerun(opened, first)["accuracy"] == first.metrics["accuracy"]
    found = replace(first, metrics={**first.metrics, "pretrain_seconds": 0})
    again = rerun(opened, found)
    assert again["accuracy"] == first.metrics["accuracy"] and again["pretrain_seconds"] == 0
    for file in (tmp_path / "run" / FOLDER).iterdir():
        file.unlink()
    with pytest.raises(RunError, match="started from pre-trained weights that were deleted"):
        rerun(opened, found)


@pytest.mark.slow
def test_heirs_begin_with_the_nearest_weights_and_can_be_run_again(document, tmp_path):
    document["pretraining"] |= {"inherit": True}
    run = search(document, tmp_path / "run", inline=True)
    records = [run.pretrained(t.id) for t in run.trials]
    assert records[0]["donor"] is None
    table = {"depth": Choice([1, 2]), "heads": Choice([2, 4]), "width": Choice([16, 32, 64])}
    for i, record in enumerate(records[1:], start=1):
        others = [Architecture(t.architecture) for t in run.trials[:i]]
        donor = nearest(Architecture(run.trials[i].architecture), others, table)
        assert record["donor"] == records[donor]["key"]
    opened = load_run(tmp_path / "run", allow_plugins=True)
    last = run.trials[-1]
    told = []
    assert rerun(opened, last, told.append)["accuracy"] == last.metrics["accuracy"]
    assert 0.5 < told[0].values["pretrain/inherited"] <= 1


def test_heirs_read_on_where_their_donors_have_not_read(document, tmp_path, monkeypatch):
    stage = Pretraining(resolve(document).sections.pretraining, made_corpus(document, tmp_path))
    space, seen = load_space(document), []
    batch = RowSampler.batch
    monkeypatch.setattr(RowSampler, "batch", lambda *given: seen.append(batch(*given)) or seen[-1])

    def read(donor):
        seen.clear()
        *_, last = stage(space.build(space.sample(np.random.default_rng(0))), 3, Compute(), donor)
        return [ids.tolist() for ids, _ in seen], last.pretrained

    first, weights = read(None)
    heir, heirs_weights = read(weights)
    assert first == read(None)[0] and heir == read(weights)[0]
    assert len(first) == len(heir) == 12 and all(a != b for a, b in zip(first, heir, strict=True))
    assert read(heirs_weights)[0] not in (first, heir)


def test_the_first_ones_inherit_from_a_pretrained_model(document, tiny_model, tmp_path):
    document["pretraining"] |= {"inherit": str(tiny_model), "steps": 1, "lr": 1e-9}
    run = search(document | {"budget": {"trials": 1}}, tmp_path / "run", inline=True)
    weights = deserialize_state(next((tmp_path / "run" / FOLDER).iterdir()).read_bytes())
    model = AutoModel.from_pretrained(tiny_model)
    torch.testing.assert_close(weights["embeddings.word_embeddings.weight"], model.embeddings.word_embeddings.weight)
    assert run.pretrained(1)["donor"] is None


def test_a_model_of_which_nothing_fits_is_refused(document, tiny_model, tmp_path):
    plugin = tmp_path / "tiny_space.py"
    plugin.write_text(plugin.read_text().replace("return BertModel(", "return Other(") + OTHER)
    document["pretraining"] |= {"inherit": str(tiny_model)}
    with pytest.raises(ConfigError, match=r"no weight of .* has the name and dimensions of a parameter of Other"):
        search(document, tmp_path / "run", inline=True)


OTHER = """
class Other(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = torch.nn.Embedding(29, 8)
    def forward(self, input_ids, attention_mask):
        return self.table(input_ids) + self.table(input_ids).mean(1, keepdim=True)
"""


@pytest.mark.slow
def test_only_the_last_used_weights_are_kept(document, tmp_path):
    document["pretraining"] |= {"keep": 2}
    run = search(document, tmp_path / "run", inline=True)
    files = {p.stem for p in (tmp_path / "run" / FOLDER).iterdir()}
    assert files == {run.pretrained(t.id)["key"] for t in run.trials[-2:]}


@pytest.mark.parametrize("heirs", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_search_that_pre_trains_is_killed_and_ends_with_the_same_trials(heirs, document, tmp_path):
    document["pretraining"] |= {"inherit": heirs}
    document["budget"] = {"trials": 6}
    whole = search(document, tmp_path / "whole", inline=True)
    kills, run = killed_often(document, tmp_path / "killed", times=4)
    assert kills == 4
    assert results(run) == results(whole)
    assert [run.pretrained(t.id) for t in run.trials] == [whole.pretrained(t.id) for t in whole.trials]
    first, second = ({p.name: p.read_bytes() for p in (r.directory / FOLDER).iterdir()} for r in (whole, run))
    assert first == second


def test_who_is_equal_to_one_that_is_being_made_waits_for_it(document, tmp_path):
    run = search(document | {"budget": {"trials": 1}}, tmp_path / "run", inline=True)
    stage = Pretraining(run.config.sections.pretraining, made_corpus(document, tmp_path))
    journal, space = Journal.create(new(tmp_path / "other")), make_space(run.config)
    shared = WeightPool(stage, space, tmp_path / "other", journal)
    small, large = ({"depth": d, "heads": 2, "width": 16} for d in (1, 2))
    first, second, third = Trial(1, small, 3, 4), Trial(2, small, 3, 4), Trial(3, large, 3, 4)
    assert shared.acquire(first) == shared.acquire(third) == Start()
    assert shared.acquire(second) is None
    # The first one dies: whoever waited makes them.
    assert shared.release(first) == [2] and shared.release(first) == []
    assert shared.acquire(second) == Start()
    assert shared.acquire(first) is None
    weights = serialize_state(torch.nn.Linear(1, 1))
    assert shared.store(second, weights) == [1]
    assert shared.acquire(first).weights.tolist() == weights.tolist()
    again = WeightPool(stage, space, tmp_path / "other", journal)
    again.restore([first, second, third])
    assert again.acquire(first).weights.tolist() == weights.tolist() and again.acquire(third) == Start()
    journal.close()


@pytest.mark.slow
def test_workers_share_what_one_of_them_made(document, tmp_path):
    """On Ray: of two equal ones at a time, the second waits for the first."""
    document["learner"] = {"name": "protonet", "steps": 2, "lr": {"choice": [1e-3, 1e-4, 1e-5]}}
    document["strategy"], document["budget"] = {"name": "grid"}, {"trials": 6}
    run = search(document, tmp_path / "run")
    assert [t.status for t in run.trials] == ["completed"] * 6
    made = [run.pretrained(t.id)["key"] for t in run.trials if t.metrics["pretrain_seconds"] > 0]
    assert sorted(made) == sorted({run.pretrained(t.id)["key"] for t in run.trials})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"objective": "clm"}, "clm predicts each token from the tokens before it, but BertModel also sees"),
        ({"block": 65}, "pretraining.block is 65, but BertModel cannot process 65 tokens"),
        ({"corpus": "nothing.txt"}, "the corpus nothing.txt cannot be read: No such file"),
        ({"of": "model"}, "that space.model names, but the search space .* has no option 'model'"),
        ({"of": "model", "tokenizer": {"train": 100}}, "a pretrained model has its own tokenizer"),
        ({"steps": 0}, "pretraining.steps is 0; expected greater than or equal to 1"),
        ({"objectve": "mlm"}, "'pretraining.objectve' is not a known key; did you mean 'objective'"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_is_trained(change, words, document, tmp_path):
    document["pretraining"] |= change
    with pytest.raises(NasMetaError, match=words):
        search(document, tmp_path / "run", inline=True)
    assert not (tmp_path / "run" / "weights").exists()


def test_a_strategy_that_gives_weights_itself_is_refused(small_config, corpus, tmp_path):
    small_config["pretraining"] = {"corpus": str(corpus), "steps": 2, "batch": 2, "block": 16}
    small_config["strategy"] = {"name": "supernet", "steps": 2, "judged": 3, "texts": 3}
    with pytest.raises(ConfigError, match="gives each candidate weights, but so does the strategy"):
        search(small_config, tmp_path / "run", inline=True)


def test_a_diverging_pre_training_fails_its_trial(document, tmp_path):
    document["pretraining"] |= {"lr": 1e30}
    with pytest.raises(NasMetaError, match=r"no trial was completed.*the pre-training loss is nan"):
        search(document, tmp_path / "run", inline=True)
    assert {t.status for t in load_run(tmp_path / "run").trials} == {"failed"}


def test_a_tokenizer_learned_for_the_run_serves_tasks_models_and_export(document, tmp_path):
    document["pretraining"] |= {"tokenizer": {"train": 29 + 71}}
    plugin = tmp_path / "tiny_space.py"
    plugin.write_text(plugin.read_text().replace("vocab_size=29", "vocab_size=100"))
    run = search(document | {"budget": {"trials": 1}}, tmp_path / "run", inline=True)
    from nas_meta.outputs.export.folder import export

    opened = load_run(tmp_path / "run", allow_plugins=True)
    folder = export(opened, tmp_path / "out")
    from transformers import AutoTokenizer

    exported, learned = map(AutoTokenizer.from_pretrained, (folder, run.directory / "tokenizer"))
    assert len(learned) <= 100 and exported.get_vocab() == learned.get_vocab()


# --- alone


@pytest.fixture
def said(capsys):
    from nas_meta.cli.main import app

    def run(*arguments):
        app([str(a) for a in arguments], standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    return run


def test_an_architecture_is_pre_trained_alone(document, said, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(document))
    run = search(document | {"budget": {"trials": 1}}, tmp_path / "run", inline=True)
    architecture = json.dumps(run.trials[0].architecture)
    done = said("pretrain", tmp_path / "c.yaml", "--to", tmp_path / "out", "--architecture", architecture, "--json")
    assert done["steps"] == 12 and done["perplexity"] > 1 and not done["resumed"]
    model = AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert sum(p.numel() for p in model.parameters()) == done["params"]
    about = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert about["architecture"] == json.loads(architecture) and about["result"]["tokens"] == 12 * 4 * 16
    # The same as in a search.
    kept = deserialize_state(next((tmp_path / "run" / FOLDER).iterdir()).read_bytes())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    for command, words in (
        (("--to", tmp_path / "none"), "has no reference model; expected an architecture, such as --architecture"),
        (("--to", tmp_path / "none", "--architecture", "{"), "--architecture is not valid JSON"),
        (("--to", tmp_path / "none", "--architecture", '{"depth": 3}'), "'depth' cannot be 3; expected one of 1, 2"),
        (("--to", tmp_path / "out", "--architecture", architecture), "already holds a pre-trained model"),
        (("--to", tmp_path, "--architecture", architecture), "is not empty; expected a new or empty folder"),
    ):
        with pytest.raises(NasMetaError, match=words):
            said("pretrain", tmp_path / "c.yaml", *command)


def test_pretraining_alone_says_what_it_does(tiny_model, corpus, tmp_path):
    small = ["--set", "pretraining.batch=4", "--set", "pretraining.block=16", "--steps", 2]
    shown = nas_meta("pretrain", tiny_model, "--corpus", corpus, "--to", tmp_path / "out", *small).stdout.splitlines()
    assert shown[:4] == [
        "reading the corpus …", "preparing the tokenizer and the model …", "tokenising the corpus …", "training …"
    ]  # fmt: skip
    assert shown[4].startswith("step 2  loss ") and shown[5] == "writing the model …"


def test_a_pretrained_model_goes_on_and_is_resumed_bit_by_bit(tiny_model, corpus, said, tmp_path, monkeypatch):
    from nas_meta.outputs import pretrained_model as standalone

    def command(folder, *more):
        small = [a for k in ("batch=4", "block=16", "checkpoint_every=10") for a in ("--set", f"pretraining.{k}")]
        return said("pretrain", tiny_model, "--corpus", corpus, "--to", folder, "--steps", 40, *small, *more, "--json")

    whole = command(tmp_path / "whole")
    write = standalone.write_atomically

    def die(path, data):
        write(path, data)
        if path.name == standalone.CHECKPOINT:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(standalone, "write_atomically", die)
        with pytest.raises((KeyboardInterrupt, NasMetaError)):
            command(tmp_path / "killed")
    assert not (tmp_path / "killed" / "config.json").exists()
    with pytest.raises(ConfigError, match="an unfinished pre-training with another pretraining"):
        command(tmp_path / "killed", "--set", "pretraining.masked=0.3")
    again = command(tmp_path / "killed")
    assert again["resumed"] and not whole["resumed"]
    assert again["loss"] == whole["loss"] and again["tokens"] == whole["tokens"]
    for file in ("model.safetensors", "pretraining_head.safetensors"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    # Its head goes on, too: one more step begins where the last one was, not with a head of random numbers.
    further = ("--to", tmp_path / "more", "--steps", 1, "--set", "pretraining.block=16", "--json")
    assert said("pretrain", tmp_path / "whole", "--corpus", corpus, *further)["loss"] < whole["loss"] + 0.3
    (tmp_path / "whole" / "pretraining_head.safetensors").unlink()
    further = ("--to", tmp_path / "less", *further[2:])
    assert said("pretrain", tmp_path / "whole", "--corpus", corpus, *further)["loss"] > whole["loss"]
