"""``compute.precision: auto``: bf16 on a CPU with AMX, and the same for the whole run wherever it is resumed."""

from pathlib import Path

import pytest
import torch
import yaml

from nas_meta.config.components import make_compute
from nas_meta.config.decisions import with_precision
from nas_meta.config.gpu_sharing import describe_device
from nas_meta.config.resolved import resolve
from nas_meta.controller import launch
from nas_meta.controller.sessions import config_to_resume
from nas_meta.errors import ConfigError
from nas_meta.models import compute

AUTO = {"compute": {"precision": "auto", "device": "cpu"}}


@pytest.fixture
def amx(monkeypatch):
    return lambda there: monkeypatch.setattr(compute, "has_amx", lambda: there)


@pytest.mark.parametrize(("there", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_on_a_cpu_with_amx(there, expected, amx, small_config):
    amx(there)
    resolved = with_precision(resolve(small_config | AUTO))
    assert resolved.document["compute"]["precision"] == expected
    assert resolve(resolved.given).sections == resolved.sections
    assert make_compute(resolved.sections).precision == make_compute(resolve(small_config | AUTO).sections).precision
    assert describe_device(resolved.sections, inline=True) == ("cpu in bf16" if there else "cpu")


def test_auto_is_fp32_where_other_machines_compute(amx, small_config, monkeypatch):
    amx(True)
    on_a_cluster = small_config | AUTO | {"resources": {"address": "10.0.0.1:6379"}}
    assert with_precision(resolve(on_a_cluster)).sections.compute.precision == "fp32"
    monkeypatch.setattr(compute, "available_gpus", lambda: 1)
    on_a_gpu = small_config | {"compute": {"precision": "auto"}}
    assert with_precision(resolve(on_a_gpu)).sections.compute.precision == "fp32"


def test_what_is_written_stays(amx, small_config):
    amx(True)
    resolved = resolve(small_config | {"compute": {"precision": "fp32"}})
    assert with_precision(resolved) is resolved


def test_a_run_keeps_its_precision_on_another_machine(amx, small_config, tmp_path):
    amx(True)
    config = small_config | AUTO
    run = launch.search(config, tmp_path / "run", inline=True)
    assert yaml.safe_load((run.directory / "config.yaml").read_text())["compute"]["precision"] == "bf16"
    assert run.report["latency"]["device"] == "1 CPU thread"  # measured as it would be exported, in fp32
    amx(False)
    for again in (config_to_resume(run.directory), config_to_resume(run.directory, resolve(config))):
        assert with_precision(again).sections.compute.precision == "bf16"
    with pytest.raises(ConfigError, match=r"compute\.precision.*fp32"):
        config_to_resume(run.directory, resolve(small_config | {"compute": {"precision": "fp32", "device": "cpu"}}))


def test_this_machine_is_asked():
    """torch says what Linux says, where both can."""
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this version of torch does not say what the CPU has")
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        pytest.skip("no /proc/cpuinfo on this system")
    assert compute.has_amx() == (" amx_bf16 " in flags.read_text(encoding="utf-8"))
