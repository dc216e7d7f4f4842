"""An exported folder names no code but that which its space wrote into it."""

import json

import torch
from transformers import AutoModel, BertConfig, BertModel

from nas_meta.outputs.export.own_code import drop_foreign_code, names_code

FOREIGN = {"AutoConfig": "evil.Config", "AutoModel": "somebody/evil--modeling.Model", "AutoX": ["../a.B", None]}


def write(file, document):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document))


def test_what_a_pretrained_model_says_about_code_is_not_exported(tmp_path):
    """As transformers writes it: the config of a model keeps every key of the folder that it came from."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = BertConfig(**sizes, vocab_size=9, auto_map=FOREIGN, custom_pipelines={"x": {"impl": "evil.Pipeline"}})
    config.nas_meta_loading = "import evil"
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    write(tmp_path / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "é": 1})
    write(tmp_path / "text" / "config.json", {"text_config": {"auto_map": FOREIGN}, "auto_map": "evil.X"})
    assert "evil" in (tmp_path / "config.json").read_text()
    drop_foreign_code(tmp_path)
    for file in tmp_path.rglob("*.json"):
        assert "evil" not in file.read_text()
    assert not names_code(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {"é": 1}
    loaded = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False, trust_remote_code=False).eval()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded(ids).last_hidden_state, model(ids).last_hidden_state)


def test_the_code_of_the_space_stays(tmp_path):
    own = {"AutoConfig": "cell_model.CellConfig", "AutoModel": "cell_model.CellModel"}
    write(tmp_path / "config.json", {"auto_map": own | {"AutoModelForCausalLM": "evil.LM"}, "nas_meta_loading": "mine"})
    (tmp_path / "cell_model.py").write_text("")
    drop_foreign_code(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"auto_map": own, "nas_meta_loading": "mine"}
    assert names_code(tmp_path)
