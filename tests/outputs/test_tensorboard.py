"""The event files of TensorBoard, read back with its own reader, and the last picture of the front."""

import io

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from nas_meta import Objective, SearchSpace
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.tensorboard import TensorBoardLog

OBJECTIVES = (Objective("accuracy"), Objective("flops", "minimize"))
REPORT = {
    "trials": {"1": {"test_accuracy": 0.7, "test_accuracy_ci95": 0.01}},
    "references": {"unsearched model, no training": {"test_accuracy": 0.6, "flops": 50e6}},
}


class Tiny(SearchSpace):
    """Two depths."""

    def choices(self):
        return {"depth": [1, 2]}

    def build(self, architecture):
        return nn.Identity()


def written(folder, report):
    """Write the event files of one trial and close them, and return the last picture of the front as a file."""
    trial = Trial(1, {"depth": 1}, 0, 4, "completed", {"accuracy": 0.75, "flops": 20e6}, finished=10.0)
    leaderboard = Leaderboard.of([trial], OBJECTIVES)
    log = TensorBoardLog(folder, Tiny(), OBJECTIVES)
    log.trial_progress(trial, 2, {"loss": 1.5, "accuracy": 0.7})
    log.trial_progress(trial, 4, {"loss": 1.25})
    log.trial_end(trial, leaderboard)
    if report is not None:
        log.tested(report, leaderboard)
    log.close(leaderboard, "done", None)
    return (folder / "pareto.png").read_bytes()


def test_the_last_picture_shows_the_baselines_once_they_are_tested(tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "compared").mkdir()
    alone, compared = written(tmp_path / "alone", None), written(tmp_path / "compared", REPORT)
    assert alone == written(tmp_path / "alone", {"trials": {}})
    assert compared != alone
    search = EventAccumulator(str(tmp_path / "compared" / "tensorboard" / "search"), {"images": 0}).Reload()
    image = search.Images("search/front")[-1]
    assert image.encoded_image_string == compared
    assert Image.open(io.BytesIO(compared)).size == (image.width, image.height)


def test_curves_texts_and_tests_are_in_the_files(tmp_path):
    written(tmp_path, REPORT)
    (folder,) = (tmp_path / "tensorboard").glob("trial-0001-*")
    events = EventAccumulator(str(folder)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("meta-train/loss")]
    assert losses == [(2, 1.5), (4, 1.25)]
    assert events.Scalars("meta-validation/accuracy")[-1].value == pytest.approx(0.75)
    assert events.Scalars("meta-test/accuracy")[0].step == 4
    assert b'"depth": 1' in events.Tensors("architecture/text_summary")[0].tensor_proto.string_val[0]
    untouched = EventAccumulator(str(tmp_path / "tensorboard" / "reference-the-untouched-model")).Reload()
    assert untouched.Scalars("meta-test/accuracy")[0].value == pytest.approx(0.6)
    search = EventAccumulator(str(tmp_path / "tensorboard" / "search")).Reload()
    assert search.Scalars("search/best")[0].value == pytest.approx(0.75)
    assert "custom_scalars__config__" in search.Tags()["tensors"]
