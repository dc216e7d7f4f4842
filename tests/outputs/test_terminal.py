"""What a search prints: live in a terminal, line by line in a file, and tables of any width."""

import dataclasses
import io
import re
import time
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from nas_meta.core.objectives import Objective
from nas_meta.journal.flat_trials import columns_and_rows
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.status import JOB, Status
from nas_meta.outputs.report.formatting import compact, compact_heading, short, trial_line
from nas_meta.outputs.report.listing import Listing
from nas_meta.outputs.report.live import LiveProgress, bar_of, panel, status_view, summary
from nas_meta.outputs.report.terminal import console, trials_table

LAYERS = 12
ARCHITECTURE = {f"layer{i}.{c}": v for i in range(LAYERS) for c, v in {"keep": True, "heads": 4 + i, "ffn": 64}.items()}


def trials(count, running=1):
    rows = [
        Trial(i, ARCHITECTURE, 0, 10, status="completed", started=1.0, finished=2.0,
              metrics={"accuracy": 0.8, "params": 2e7, "flops": 5e8, "train_seconds": 3.0})
        for i in range(1, count - running + 1)
    ]  # fmt: skip
    return rows + [Trial(i, ARCHITECTURE, 0, 10, started=3.0) for i in range(count - running + 1, count + 1)]


def test_a_trial_took_the_same_time_in_its_line_in_the_table_and_in_the_csv():
    parts = {"pretrain_seconds": 1.0, "train_seconds": 2.0, "evaluate_seconds": 3.0}  # without the build, for example
    trial = Trial(1, {"a": 1}, 0, 10, "completed", {"accuracy": 0.8, **parts}, started=10.0, finished=18.5)
    assert trial_line(trial).endswith(", 8.5 s")
    assert re.search(r"\b8\.5\b", "".join(printed(trials_table([trial]), 120)))
    assert columns_and_rows([trial])[1][0]["seconds"] == trial.seconds == 8.5


def status(phase, rows=(), ago=0.0):
    board = Leaderboard.of(rows, [Objective("accuracy")])
    return Status(phase, board, 20, time.time() - ago, {t.id: 5 for t in board.running.values()}, Path("run"))


def printed(shown, width, terminal=False):
    out = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, markup=False, emoji=False
    )
    out.print(shown)
    return out.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120, 160])
@pytest.mark.parametrize("view", [panel, status_view])
def test_the_bar_has_a_line_of_its_own_and_nothing_is_cut(view, width):
    lines = printed(view(status("searching", trials(4), 75)), width)
    bars = [line for line in lines if "━" in line]
    assert len(bars) == 1 and set(bars[0].strip()) <= set("━╸╺")
    text = " ".join(" ".join(lines).split())
    assert "3/20 done, 1 running" in text and "elapsed 1:15" in text and "trial 4: step 5/10" in text
    assert "best so far trial 1: 80.0 %, 20.0 M parameters, 500 MFLOPs, 1.0 s" in text
    assert all(cell_len(line) <= width for line in lines)


def test_the_meta_test_shows_how_many_models_are_tested():
    shown = dataclasses.replace(status("meta-testing", trials(4, 0)), steps={JOB: 2}, job_steps=8)
    head, bar, best = printed(panel(shown), 80)
    assert head.startswith("meta-testing the best  2/8 models  elapsed") and best.startswith("best so far  trial 1")
    assert set(bar.strip()) <= set("━╸╺") and bar_of(shown) == (2, 8)


def test_long_headings_take_several_lines_where_the_rows_fit():
    table = Listing("trials")
    for title in ("", "against the best", "calibration error"):
        table.add_column(title, justify="right")
    table.add_row("ensemble", "+0.1", "0.02", detail="1, 2")
    assert [line.rstrip() for line in printed(table, 32)] == [
        "          against",
        "              the  calibration",
        "             best        error",
        "    trials",
        "ensemble     +0.1         0.02",
        "    1, 2",
    ]


def test_a_sentence_that_needs_two_lines_stays_right_of_its_label():
    shown = dataclasses.replace(status("failed"), error="the disk is full, " * 6)
    lines = printed(status_view(shown), 60)
    first = next(i for i, line in enumerate(lines) if line.startswith("error        the disk"))
    assert re.match(r" {13}\w", lines[first + 1])


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [60, 80, 120, 160, 300])
@pytest.mark.parametrize(("wide", "formatted"), [(True, short), (False, compact)])
def test_a_table_of_trials_fits_and_keeps_every_cell(width, wide, formatted, terminal):
    rows = trials(5, 0)
    lines = printed(trials_table(rows, ["accuracy"], wide), width, terminal)
    text = re.sub(r"[\s│]", "", "".join(lines))
    assert text.count(formatted(ARCHITECTURE).replace(" ", "")) == len(rows) and "…" not in text
    assert terminal or not re.search("[│┃━─]", "".join(lines))
    assert terminal or width < 120 or not any(line.endswith(" ") for line in lines)
    assert all(cell_len(line) <= width for line in lines)
    if width <= 80:
        assert len(lines) <= 4 * len(rows) + 2


MINILM = {"layer0.keep": True, "layer0.heads": 12, "layer0.ffn": 1536, "layer1.keep": False,
          "layer2.keep": True, "layer2.heads": 9, "layer2.ffn": 768}  # fmt: skip


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_of_four_layers_has_a_line_per_trial_in_80_columns(terminal):
    rows = [dataclasses.replace(t, architecture=MINILM) for t in trials(5, 0)]
    lines = printed(trials_table(rows), 80, terminal)
    assert len(lines) == len(rows) + 1 and all(cell_len(line) <= 80 for line in lines)
    assert "layer:heads/ffn" in lines[0] and all("0:12/1536 2:9/768" in line for line in lines[1:])


def test_a_compact_architecture_lists_the_values_of_each_layer():
    assert compact(MINILM) == "0:12/1536 2:9/768" and compact_heading([MINILM]) == "layer:heads/ffn"
    alike = {f"layer{i}.{c}": v for i in (0, 1, 2, 4) for c, v in {"keep": True, "heads": 12, "ffn": 1536}.items()}
    assert compact(alike | {"pooling": "cls", "learner.lr": 2e-5}) == "0-2,4:12/1536 pooling=cls learner.lr=2e-05"
    assert compact({"depth": 2, "block0.op": "conv", "block1.op": "conv"}) == "block0,1:conv depth=2"
    assert compact_heading([{"depth": 2}]) == "architecture"
    assert compact_heading([MINILM, {"layer0.op": "conv"}]) == "architecture"
    assert compact({"layer0.keep": True, "layer3.keep": True, "layer4.keep": False}) == "0,3"


def test_layers_are_merged_in_a_short_architecture():
    assert short(ARCHITECTURE) == "layer0-11 keep heads=4,5,6,7,8,9,10,11,12,13,14,15 ffn=64"
    assert short({"layer0.keep": True, "layer0.heads": 4, "layer1.keep": False, "layer2.keep": True,
                  "layer2.heads": 2, "pooling": "cls", "adapter.rank": 8}) == (
        "layer0,2 keep heads=4,2; pooling=cls; adapter rank=8"
    )  # fmt: skip
    assert short({"a1": 1, "b.x": False}) == "a1=1"


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("200", 200), ("", 160), ("wide", 160), ("0", 160)])
def test_a_pipe_is_as_wide_as_columns_says(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert console().width == width


def test_the_clock_runs_while_the_search_is_silent():
    out = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"})
    with LiveProgress(out) as watch:
        watch(status("preparing", ago=8.2))
        deadline = time.time() + 8
        while "elapsed 0:10" not in out.file.getvalue() and time.time() < deadline:
            time.sleep(0.1)
    assert {"0:08", "0:09", "0:10"} <= set(re.findall(r"elapsed (\d:\d\d)", out.file.getvalue()))


def test_a_file_gets_lines_between_trials():
    out = Console(file=io.StringIO(), width=80)
    with LiveProgress(out, silence=0.1) as watch:
        watch(status("preparing"))
        watch(status("searching", trials(4)))
        deadline = time.time() + 8
        while "step 5/10" not in out.file.getvalue() and time.time() < deadline:
            time.sleep(0.05)
    lines = " ".join(out.file.getvalue().split())
    assert "searching 3/20 done, 1 running, 0 failed elapsed 0:00" in lines and "trial 4: step 5/10" in lines
    assert lines.index("trial 1: 80.0 %") < lines.index("3/20 done")
    assert "\x1b" not in lines


def test_many_running_trials_leave_room_on_a_small_terminal():
    out = Console(file=io.StringIO(), force_terminal=True, width=80, height=12, _environ={"TERM": "xterm"})
    with LiveProgress(out) as watch:
        watch(status("searching", trials(30, running=29)))
    assert "and 25 more" in out.file.getvalue()


@pytest.mark.parametrize(("earlier", "share"), [(0, 3 / 20), (2, 1 / 18), (3, 0)])
def test_the_time_left_is_estimated_from_the_trials_of_this_process(earlier, share):
    shown = dataclasses.replace(status("searching", trials(4)), earlier=earlier)  # three of twenty have ended
    assert summary(shown).share == pytest.approx(share)
    assert ("left" in summary(shown).line()) is (share > 0)
