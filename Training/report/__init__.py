"""The report of the experiments: `python -m Training report` writes pages with every table and figure.

`read_archive` reads every nodule's figures of the archived results, `StudyStore` one of their studies, `JobStore` a
folder of your own jobs; `make_report` writes a page of either.
"""

from .archive import read_archive
from .cli import make_report
from .store import JobError, JobStore
from .study import StudyStore

__all__ = ["JobError", "JobStore", "StudyStore", "make_report", "read_archive"]
