"""Before the first trial: models that cannot be trained or exported are refused by the choice at fault."""

import pytest
import torch
from transformers import AutoModel, BigBirdConfig, BigBirdModel, EuroBertConfig, EuroBertModel, MPNetConfig, MPNetModel

from nas_meta import Choice, SearchSpace, search
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError
from nas_meta.evaluation.preflight import check_models, covering, items, smallest

SIZES = {
    "vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES = {
    "mpnet": lambda: MPNetModel(MPNetConfig(**SIZES)),
    "eurobert": lambda: EuroBertModel(
        EuroBertConfig(**SIZES, pad_token_id=0, bos_token_id=2, eos_token_id=3, mask_token_id=4)
    ),
    "bigbird": lambda: BigBirdModel(
        BigBirdConfig(**SIZES, attention_type="original_full", bos_token_id=2, eos_token_id=3, sep_token_id=3)
    ),
}


@pytest.fixture
def config_of(small_config, tiny_model, tmp_path):
    """Makes the config of a search over a tiny model of a family, with these options of the space."""
    from transformers import AutoTokenizer

    def make(family, **space):
        torch.manual_seed(0)
        folder = tmp_path / family
        FAMILIES[family]().save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
        return small_config | {"space": {"model": str(folder), **space}}

    return make


def test_a_choice_that_does_not_fit_the_model_is_refused_by_name(config_of, tmp_path):
    """The gates of EuroBERT's feed-forward blocks are not described in the table of families."""
    config = config_of("eurobert", name="peft-bert")
    with pytest.raises(ConfigError, match=r"layer\d\.part='adapter' cannot be trained") as refused:
        search(config, tmp_path / "run", inline=True)
    assert f"space.model '{config['space']['model']}'" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_family_without_a_description_is_refused_by_name(config_of, tmp_path):
    config = config_of("bigbird", name="bert-subnet")
    with pytest.raises(ConfigError, match=r"is a BigBirdModel; expected one of bert, .*mpnet"):
        search(config, tmp_path / "run", inline=True)


@pytest.mark.parametrize("adapters", [["none", "lora"], ["none", "ia3"]])
def test_what_is_left_over_gives_models_that_plain_transformers_loads(config_of, tmp_path, adapters):
    run = search(
        config_of("mpnet", name="peft-bert", adapters=adapters) | {"budget": {"trials": 1}},
        tmp_path / "run",
        inline=True,
    )
    from nas_meta.outputs.export.folder import export

    folder = export(run, tmp_path / "model")
    assert type(AutoModel.from_pretrained(folder)).__name__ == "MPNetModel"


class Forgetful(SearchSpace):
    """A BERT whose file leaves out what some architectures add to it."""

    def __init__(self, options=None):
        super().__init__(options)
        self.built = []

    def choices(self):
        return {"width": [16, 32], "block0.extra": [False, True], "block0.size": Choice((1, 2), {"block0.extra": True})}

    def build(self, architecture):
        from transformers import BertConfig, BertModel

        self.built.append(architecture)
        model = BertModel(BertConfig(**SIZES | {"hidden_size": architecture["width"], "intermediate_size": 16}))
        if architecture["block0.extra"]:
            model.encoder.layer[0].output.dense.register_forward_hook(lambda m, i, output: output * 2)
        return model

    def counts(self, architecture, tokens):
        return {"params": architecture["width"] + architecture["block0.extra"]}


@pytest.fixture
def evaluation(small_config):
    """Makes the evaluation of trials over a space."""
    import dataclasses

    from nas_meta.config.components import make_evaluation

    problem = load_problem(resolve(small_config))

    def make(space, **options):
        config = resolve(small_config | {"learner": {"name": "protonet", **options}})
        return dataclasses.replace(
            make_evaluation(config, problem.space, None, problem.shape, 1), space=space, tasks=problem.tasks
        )

    return make


def test_a_model_whose_reloaded_file_gives_other_outputs_is_refused(evaluation):
    with pytest.raises(ConfigError, match=r"block0\.extra=True cannot be exported \(its export gives other"):
        check_models(evaluation(Forgetful()))


def test_the_check_leaves_the_random_numbers_as_they_are_and_distils_without_a_teacher(evaluation):
    space = Forgetful()
    space.choices = lambda: {"width": [16, 32], "block0.extra": [False]}
    state = torch.get_rng_state()
    check_models(evaluation(space, training={"distill": 1.0}))
    assert torch.equal(state, torch.get_rng_state())


class Unexportable(Forgetful):
    """Models that are plain modules: the space says nothing about files, and so nothing is compared."""

    def build(self, architecture):
        width = architecture["width"]
        model = torch.nn.Sequential(torch.nn.Embedding(80, width), torch.nn.Linear(width, width))
        model.forward = lambda input_ids, attention_mask: model[1](model[0](input_ids))
        return model


def test_models_of_a_space_that_cannot_export_are_only_trained(evaluation):
    check_models(evaluation(Unexportable()))


def test_few_architectures_cover_all_values(evaluation):
    space = Forgetful()
    tried = covering(space, 0, 16)
    assert tried[0] == smallest(space, tried, 16) and tried[0]["width"] == 16 and not tried[0]["block0.extra"]
    assert len(tried) <= 4
    assert {item for a in tried for item in items(space, a)} == {
        ("width", 16, ()), ("width", 32, ()), ("block*.extra", False, ()), ("block*.extra", True, ()),
        ("block*.size", 1, (("block*.extra", True),)), ("block*.size", 2, (("block*.extra", True),)),
    }  # fmt: skip


def test_a_search_can_do_without_the_check(config_of, tmp_path):
    config = config_of("mpnet", name="peft-bert", adapters=["adapter"])
    config["evaluation"] |= {"check_models": False}
    run = search(config | {"budget": {"trials": 1}}, tmp_path / "run", inline=True)
    assert run.best.status == "completed"
