"""A PDF is read in a process of its own, with a limit of time and of memory: whatever it does, the build goes on.

    python -m pdf.reading FILE OPTIONS.json RESULT.json

is that process. Only a complete result file is trusted.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .document import Options, Section

FOLDER = Path(__file__).resolve().parents[1]


@dataclass(kw_only=True)
class Limits:
    seconds: float = 120.0
    megabytes: int = 2048
    pages: int = 1000


@dataclass(kw_only=True)
class Report:
    """What became of a file."""

    reason: str = ""
    """Why it was skipped; empty when it was read."""
    pages: int = 0
    title: str = ""
    sections: list[Section]
    captions: list[str]
    removed: dict[str, int]
    """Characters by reason."""
    raw: str = ""
    """The plain text, before anything was removed."""
    seconds: float = 0.0


def skipped(reason: str, pages: int = 0) -> Report:
    return Report(reason=reason, pages=pages, sections=[], captions=[], removed={})


def look(file: Path) -> str:
    """Why a file cannot be a whole PDF, from its first and last bytes; empty where nothing speaks against it."""
    try:
        size = file.stat().st_size
        if not size:
            return "empty file"
        with file.open("rb") as stream:
            head = stream.read(1024)
            stream.seek(max(0, size - 4096))
            tail = stream.read()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if b"%PDF-" not in head:
        is_html = re.search(rb"<(!doctype html|html|head|body)\b", head, re.I)
        return "an HTML page, not a PDF" if is_html else "not a PDF"
    return "" if b"%%EOF" in tail else "truncated: the end of the file is missing"


def read_file(file: Path, options: Options, limits: Limits) -> Report:
    """The document in `file`, or why there is none. Never raises for what the file contains."""
    started = time.monotonic()
    if reason := look(file):
        return skipped(reason)
    with tempfile.TemporaryDirectory() as folder:
        settings, output = Path(folder) / "options.json", Path(folder) / "result.json"
        settings.write_text(json.dumps({"options": asdict(options), "limits": asdict(limits)}), encoding="utf-8")
        command = [sys.executable, "-m", "pdf.reading", *map(os.fspath, (file.absolute(), settings, output))]
        path = os.pathsep.join(filter(None, [os.fspath(FOLDER), os.environ.get("PYTHONPATH")]))
        try:
            # Its output is discarded: a hostile file could fill a disk with MuPDF's warnings.
            process = subprocess.run(
                command,
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=limits.seconds,
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            return skipped(f"not read within {limits.seconds:g} seconds")
        if not output.is_file():
            return skipped(
                f"the reader stopped with code {process.returncode} (limit: {limits.megabytes} MB of memory)"
            )
        result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    result["sections"] = [Section(**section) for section in result["sections"]]
    return Report(**result, seconds=round(time.monotonic() - started, 2))


def limit_process(limits: Limits) -> None:
    """Limits the memory and, in case this process outlives its parent, the processor time."""
    try:
        import resource
    except ImportError:  # not on Windows: there the limit of time remains
        return
    memory = limits.megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    seconds = int(limits.seconds) + 5
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_here(file: Path, options: Options, limits: Limits) -> Report:
    """As `read_file`, in this process."""
    import pymupdf

    from .extraction import extract

    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    try:
        with pymupdf.open(file, filetype="pdf") as pdf:
            if pdf.needs_pass:
                return skipped("encrypted: a password is needed")
            pages = len(pdf)
        if not pages:
            return skipped("no pages")
        if pages > limits.pages:
            return skipped(f"{pages:,} pages, more than {limits.pages:,}", pages)
        extracted = extract(file, options)
    except MemoryError:
        return skipped(f"needs more than {limits.megabytes} MB of memory")
    except Exception as error:  # whatever pymupdf and a broken file come up with
        if "alloc" in str(error) or "memory" in str(error).lower():
            return skipped(f"needs more than {limits.megabytes} MB of memory")
        return skipped(f"broken: {' '.join(str(error).split())[:200] or type(error).__name__}")
    if len(extracted.raw.split()) < 20:
        return skipped("no text: pages that are pictures need optical character recognition first", pages)
    if not any(section.paragraphs for section in extracted.document.sections):
        return skipped("no running text", pages)
    return Report(
        pages=pages,
        title=extracted.document.title,
        sections=extracted.document.sections,
        captions=extracted.captions,
        removed=extracted.removed.characters(),
        raw=extracted.raw,
    )


def main() -> None:
    file, settings, output = map(Path, sys.argv[1:])
    read = json.loads(settings.read_text(encoding="utf-8"))
    limits = Limits(**read["limits"])
    limit_process(limits)
    result = asdict(read_here(file, Options(**read["options"]), limits))
    del result["seconds"]
    partial = output.with_suffix(".partial")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(output)


if __name__ == "__main__":
    main()
