"""Private names of other packages: each is listed here, exists in the installed version, and is justified in its file.

A package may remove such a name in any release. The tests below then fail with the name, the file that uses it, and
what it is needed for.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("nas_meta", "strategies", "search_spaces")

# file -> private names that it uses -> what they are needed for
PRIVATE = {
    "nas_meta/execution/ray_connection.py": {
        "ray._private.ray_constants.ENABLE_RAY_CLUSTER": "making Ray listen on 127.0.0.1",
        "ray._raylet.AuthenticationMode": "checking that Ray requires a token",
        "ray._raylet.AuthenticationTokenLoader.instance": "giving every search a token of its own",
        "ray._raylet.Config.initialize": "changing how Ray authenticates in a process",
        "ray._raylet.get_authentication_mode": "checking that Ray requires a token",
    },
    "nas_meta/execution/ray_processes.py": {
        "ray._private.worker._global_node": "noticing that a process of Ray has died",
        "ray._private.node.Node.get_logs_dir_path": "naming the log of a process of Ray that has died",
        "ray._private.node.Node.raylet_socket_name": "finding the raylet of a cluster that the search has joined",
    },
    "nas_meta/models/compute.py": {
        "transformers.modeling_layers.GradientCheckpointingLayer": "recomputing layers in the backward pass",
    },
    "nas_meta/testing/device_rule.py": {
        "torch.utils._pytree.tree_flatten": "finding the tensors among the arguments of an operation",
        "torch.utils._pytree.tree_map": "marking the tensors of a result",
    },
    "strategies/one_shot/enas.py": {
        "nni.nas.strategy._rl_impl.TuningTrajectoryGenerator": "the controller of ENAS",
        "nni.nas.strategy._rl_impl.default_policy_fn": "the controller of ENAS",
    },
}
# parameters of ray.init whose names begin with an underscore
PARAMETERS = ("_metrics_export_port", "_system_config", "_temp_dir")
# attributes that objects get when they are made
ATTRIBUTES = {
    "nas_meta/execution/ray_processes.py": ("ray._private.node", "all_processes"),
    "nas_meta/models/compute.py": ("transformers.modeling_layers", "_gradient_checkpointing_func"),
    "strategies/nni/rl.py": ("nni.nas.strategy.rl", "_invalid_patience"),
}


def is_private(path):
    """Whether a part of a dotted path is private."""
    return any(re.match(r"_(?!_)", part) for part in path.split("."))


def private_imports(source):
    """The private names that a module imports from other packages."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] not in OURS and is_private(name))


def private_chains(source):
    """Dotted paths such as ``torch._foreach_add_``: private names that are looked up in an imported module."""
    tree = ast.parse(source)
    modules = {a.asname or a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules |= {alias.asname or alias.name for node in froms for alias in node.names if alias.name == "nn"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            path = ast.unparse(node)
            if re.fullmatch(r"[\w.]+", path) and path.split(".")[0] in modules and is_private(node.attr):
                yield path


def test_private_names_of_a_module():
    source = "import torch\nimport ray._r\nfrom a._b import c\nfrom nas_meta.a import _b\ntorch._x.y(torch.z); self._q"
    assert sorted(private_imports(source)) == ["a._b.c", "ray._r"]
    assert list(private_chains(source)) == ["torch._x"]


def test_every_private_name_is_listed():
    unlisted = []
    for file in sorted(file for package in OURS for file in (ROOT / package).rglob("*.py")):
        where, source = str(file.relative_to(ROOT)), file.read_text()
        for name in {*private_imports(source), *private_chains(source)}:
            if not any(listed.startswith(name) for listed in PRIVATE.get(where, ())):
                unlisted.append(f"{where} uses {name}: use a public name, or list it here and justify it there")
    assert not unlisted, "\n".join(unlisted)


NAMES = [pytest.param(file, name, why, id=name) for file, names in PRIVATE.items() for name, why in names.items()]


@pytest.mark.parametrize(("file", "name", "why"), NAMES)
def test_a_private_name_exists(file, name, why):
    pytest.importorskip("tianshou" if "_rl_impl" in name else name.split(".")[0], reason="the extra is not installed")
    if name.startswith("nni."):
        import strategies.nni.bare  # noqa: F401  tells NNI how to start
    parts = name.split(".")
    found, rest = None, []
    for end in range(len(parts), 0, -1):
        try:
            found, rest = importlib.import_module(".".join(parts[:end])), parts[end:]
            break
        except ImportError:
            continue
    for part in rest:
        assert hasattr(found, part), f"{name} is gone, and {file} needs it for {why}"
        found = getattr(found, part)


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_ray_still_takes_a_parameter(parameter):
    import ray

    assert f'"{parameter}"' in inspect.getsource(ray.init), (
        f"ray.init no longer takes {parameter}, which nas_meta/execution/ray_connection.py passes"
    )


@pytest.mark.parametrize(("file", "place"), ATTRIBUTES.items(), ids=lambda value: str(value))
def test_an_attribute_is_still_used_by_its_package(file, place):
    module, name = place
    if module.startswith("nni."):
        pytest.importorskip("tianshou", reason="the extra nas-meta[rl] is not installed")
        import strategies.nni.bare  # noqa: F401
    source = inspect.getsource(importlib.import_module(module))
    assert re.search(rf"\b{name}\b", source), f"{module} no longer uses {name}, which {file} sets or reads"


@pytest.mark.parametrize("file", sorted({*PRIVATE, *ATTRIBUTES}))
def test_the_place_of_use_says_why(file):
    text = (ROOT / file).read_text()
    assert re.search(r"# ?.*[Pp]rivate, because", text), f"{file} does not state why it needs private names"
