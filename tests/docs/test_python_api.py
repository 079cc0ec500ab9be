"""The reference in docs/python_api.md is what the docstrings say today."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("python_api", ROOT / ".ci" / "python_api.py")
assert SPEC is not None
assert SPEC.loader is not None
python_api = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(python_api)


def test_the_page_is_up_to_date() -> None:
    page = python_api.PAGE.read_text(encoding="utf-8")
    assert page == python_api.written(page), "run python .ci/python_api.py"


def test_sections_become_lists() -> None:
    docstring = """Adds.

        More words.

        Args:
            left, right: what to add,
                both of them.

        Raises:
            ValueError: never.
        """
    assert python_api.markdown(docstring).splitlines() == [
        "Adds.", "", "More words.", "", "**Args**", "",
        "- `left, right`: what to add, both of them.", "", "**Raises**", "", "- `ValueError`: never.",
    ]  # fmt: skip
