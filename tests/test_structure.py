"""The rules that keep the parts apart."""

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_the_import_contracts_hold(monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    assert lint_imports(no_cache=True, is_debug_mode=False, show_timings=False, verbose=False) == EXIT_STATUS_SUCCESS
