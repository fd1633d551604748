"""The report of the experiments: `python -m Training report` writes one page with every table and figure.

`JobStore` reads results; `add_arguments` and `run` are the command; `make_report` is what it does.
"""

from .cli import add_arguments, make_report, run
from .store import JobError, JobStore

__all__ = ["JobError", "JobStore", "add_arguments", "make_report", "run"]
