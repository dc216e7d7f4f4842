"""What a search prints at its end."""

from nas_meta.outputs.report.terminal import console, result_table


def shown(run):
    """The table of results of a run as one line of text."""
    out = console()
    with out.capture() as captured:
        out.print(result_table(run))
    return " ".join(captured.get().split())
