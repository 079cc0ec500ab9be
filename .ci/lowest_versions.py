"""Prints `name==version` for the lower bound of every requirement that is installed with the extra [dev].

torch is left out: constraints.txt has the one version of it that all environments share.
"""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

if __name__ == "__main__":
    for requirement in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        name, version = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)(?:,<[\w.]+)?", requirement).groups()
        if name != "torch":
            print(f"{name}=={version}")
