"""The run as Python users get it: the record of a search, with what can be made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.errors import ConfigError
from nas_meta.journal import run as record
from nas_meta.journal.run import load_run as load_record

if TYPE_CHECKING:
    import pandas

    from nas_meta.outputs.classifier.classifier import FewShotClassifier
    from nas_meta.outputs.report.plots import Plots


@dataclass(frozen=True, repr=False)
class Run(record.Run):
    """A search and its results, read from its directory; also while the search still runs.

    Attributes:
        directory: The run directory.
        allow_plugins: Whether the code of plugin files that the run's config names may be run.
    """

    def __repr__(self) -> str:
        """Return the run with its best trial, short enough for a prompt."""
        from nas_meta.outputs.report.run_overview import as_line

        return as_line(self)

    def _repr_html_(self) -> str:
        """Return the run for notebooks: its verdict, and a table of its best trials."""
        from nas_meta.outputs.report.run_overview import as_html

        return as_html(self)

    @property
    def plot(self) -> Plots:
        """Figures of the run, such as ``run.plot.history()``; each returns the axes of matplotlib."""
        from nas_meta.outputs.report.plots import Plots

        return Plots(self)

    def trials_dataframe(self) -> pandas.DataFrame:
        """Return the trials as a data frame of pandas.

        Returns:
            One row per trial: its attributes, ``seconds``, its metrics, and its choices as ``architecture.NAME``.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ConfigError("trials_dataframe() needs pandas; expected pip install pandas") from error
        from nas_meta.journal.flat_trials import columns_and_rows

        columns, rows = columns_and_rows(self.trials)
        return pandas.DataFrame(rows, columns=columns)

    def classifier(self, trial: int | None = None, **settings: Any) -> FewShotClassifier:
        """Return a few-shot classifier with the trained model of a trial.

        Args:
            trial: ID of the trial; by default the best.
            **settings: Further arguments of :func:`nas_meta.load_classifier`.

        Returns:
            The classifier, to be fitted.

        Raises:
            RunError: The weights of the trial were not kept, or no trial is completed.
        """
        from nas_meta.outputs.classifier.loading import load_classifier

        return load_classifier(self, trial=trial, **{"allow_plugins": self.allow_plugins, **settings})

    def export(self, folder: str | Path, trial: int | None = None) -> Path:
        """Write the trained model of a trial as a Hugging Face folder.

        Args:
            folder: New or empty folder to write.
            trial: ID of the trial; by default the best.

        Returns:
            The folder.

        Raises:
            RunError: The weights of the trial were not kept, or the folder is not empty.
        """
        from nas_meta.outputs.export.folder import export

        return export(self, folder, trial)

    def write_report(self, file: str | Path | None = None, **rates: Any) -> Path:
        """Write the report of the search as one HTML file, like ``nas-meta report``.

        Args:
            file: The file, which is replaced if it exists; by default ``report.html`` in the run directory.
            **rates: Power and prices for the estimates of energy and money, such as ``watts_per_core=8``; the fields of
                :class:`nas_meta.outputs.report.cost.Rates`.

        Returns:
            The file.

        Raises:
            RunError: The file cannot be written, or the journal is damaged.
        """
        from nas_meta.outputs.report.cost import Rates
        from nas_meta.outputs.report.facts import default_file
        from nas_meta.outputs.report.html import report_facts, write_report
        from nas_meta.outputs.snapshot import snapshot

        run = snapshot(self)
        target = default_file(run) if file is None else Path(file)
        write_report([run], report_facts([run], Rates(**rates)), target)
        return target


def load_run(path: str | Path, allow_plugins: bool = False) -> Run:
    """Open a run directory; nothing in it is executed.

    Args:
        path: The run directory.
        allow_plugins: Whether the code of plugin files that the run's config names may be run once it is needed.

    Returns:
        The run.

    Raises:
        RunError: The directory is not a run, it is damaged, or a newer version wrote it.
    """
    load_record(path)  # reads the journal, so that a damaged one is refused here
    return Run(Path(path), allow_plugins)
