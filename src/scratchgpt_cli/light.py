"""Modules of a package before what its `__init__` imports: of scratchgpt, torch, which takes seconds.

For a program that has to answer at once: its arguments are checked, and a port is open, before the rest is there.
"""

import sys
from importlib.util import find_spec, module_from_spec
from typing import Any


def postpone(name: str) -> None:
    """From now on the package's modules can be imported, and its `__init__` runs when somebody asks for a name of its
    own (`from scratchgpt import ScratchGPTConfig`), or with `complete`. One that has run is left alone."""
    spec = find_spec(name) if name not in sys.modules else None
    if spec is not None:
        sys.modules[name] = package = module_from_spec(spec)

        def first_asked(attribute: str) -> Any:
            complete(name)
            return getattr(package, attribute)

        vars(package)["__getattr__"] = first_asked


def complete(name: str) -> None:
    """Runs what `postpone` left for later, if anything."""
    package = sys.modules[name]
    if vars(package).pop("__getattr__", None) is not None:
        assert package.__spec__ is not None
        assert package.__spec__.loader is not None
        package.__spec__.loader.exec_module(package)
