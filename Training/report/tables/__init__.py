"""The tables of the report. A kind of experiment (`Training.experiments.kinds`) names the function that makes its own:
(store, experiment) -> (tables, plain sentences, what couldn't be shown and why).
"""

from .comparison import comparison
from .complex_tables import worst_nodules
from .readers import reader_tables
from .table import Cell, Head, Record, Table

__all__ = ["Cell", "Head", "Record", "Table", "comparison", "reader_tables", "worst_nodules"]
