"""An exported folder in a process that has transformers and its own code, but not nas-meta."""

import subprocess
import sys

import torch

PROGRAM = """
import sys, torch
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
ids, mask = torch.load(sys.argv[2])
torch.save(getattr(model(input_ids=ids, attention_mask=mask), sys.argv[3]).detach(), sys.argv[2])
assert not any(n.startswith(("nas_meta", "search_spaces")) for n in sys.modules)
"""


def output_alone(folder, ids, mask, name, scratch):
    """An output of the model in a folder, loaded by plain transformers.

    Args:
        folder: The folder.
        ids: Token ids.
        mask: Attention mask.
        name: Name of the output, such as ``last_hidden_state``.
        scratch: A folder for a file.
    """
    file = scratch / "tensors.pt"
    torch.save((ids, mask), file)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(file), name],
        capture_output=True, text=True, cwd=scratch, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return torch.load(file)
