"""A folder of PDFs (or a list of links) → a clean corpus: documents with their sections, and passages.

    python data_builders/pdf_reports.py --source my_pdfs --output_dir data/reports
    python data_builders/pdf_reports.py --source data_builders/reports.yaml --output_dir data/reports
    python data_builders/pdf_reports.py --source a.pdf b.pdf --output_dir data/two --keep_captions True

Made for papers and technical reports whose PDF holds text. The text is taken by its place and print (`pdf/`): columns
in reading order; headers, footers, stamps, tables, captions, footnotes, formulas, authors and references left out;
words that line ends cut in two made whole; headings and appendices kept; exponents written `10^22`. Near-duplicate
paragraphs go. What comes out are two data sets in subfolders:

    documents/   {"id", "title", "text", "captions", "source"}   headings are Markdown's
    passages/    {"id", "title", "section", "text", "source"}    of about `--passage_words` words, within a section

and beside them `manifest.json` (of each file: SHA-256, pages, status, why it was skipped), `statistics.md` and
`statistics.png` (characters, words and tokens before and after; what each step removed). A document is in one split
with all its passages. Files that cannot be read are skipped with the reason, and the exit code is then 3.

A manifest is a YAML file: `reports: [{title: …, url: …, license: …}, …]`; `data_builders/reports.yaml` holds 37
technical reports. The texts belong to their authors: the data set card names the sources and their licences.

Needs pymupdf (AGPL-3.0 or commercial): pip install "scratchgpt[pdf]".
"""

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from datasets import Features, Value
from tqdm import tqdm

from scratchgpt.arguments import option, parse_arguments, run_recipe
from scratchgpt.data.builder import BuilderArguments, Built, check_arguments, finish, make_dataset
from scratchgpt.data.splits import check_fractions, draw

if __package__:
    from .pdf import statistics
    from .pdf.document import Document, Options, to_text
    from .pdf.download import Downloader, file_name
    from .pdf.passages import count_words, drop_duplicates, make_passages
    from .pdf.reading import Limits, Report, read_file, skipped
else:  # run as a script
    from pdf import statistics
    from pdf.document import Document, Options, to_text
    from pdf.download import Downloader, file_name
    from pdf.passages import count_words, drop_duplicates, make_passages
    from pdf.reading import Limits, Report, read_file, skipped

SOME_SKIPPED = 3
"""Exit code: the data set is there, but not every file is in it."""


@dataclass(kw_only=True)
class PDFReportsArguments(BuilderArguments):
    HELP_GROUPS = {"source": "Data", "header_threshold": "Filters", "passage_words": "Splits"}

    source: list[str] = option([], "A folder, .pdf files, or a manifest (.yaml) of titles and links.")
    download_dir: str | None = option(None, "Where downloads are kept; by default beside output_dir.")
    seconds_between_requests: float = option(3.0, "Pause between two downloads from one host.", at_least=0)
    max_files: int | None = option(None, "Only the first so many.", at_least=1)
    max_pages: int = option(1000, "Files with more pages are skipped.", at_least=1)
    max_seconds: float = option(120.0, "Seconds that reading one file may take.", above=0)
    max_memory_megabytes: int = option(2048, "Memory that reading one file may take.", at_least=64)
    max_file_megabytes: int = option(200, "Larger downloads are refused.", at_least=1)
    num_workers: int = option(2, "Files that are read at the same time.", at_least=1)
    header_threshold: float = option(
        0.25, "Share of the pages on which a line must stand to be a header or footer.", above=0, at_most=1
    )
    keep_references: bool = option(False, "Whether the list of references stays.")
    keep_captions: bool = option(False, "Whether captions stay in the text.")
    keep_footnotes: bool = option(False, "Whether footnotes stay, after the paragraph that they interrupt.")
    min_words: int = option(4, "Shorter paragraphs are left out.", at_least=0)
    max_number_share: float = option(
        0.35, "Paragraphs with a larger share of digits are left out.", at_least=0, at_most=1
    )
    near_duplicate_threshold: float = option(
        0.8, "Jaccard similarity from which a later paragraph is left out.", above=0, at_most=1
    )
    passage_words: int = option(200, "Length of a passage.", at_least=1)
    validation_fraction: float = option(0.1, "Share of the documents that validates.", at_least=0, below=1)
    test_fraction: float = option(0.1, "Share of the documents that tests.", at_least=0, below=1)


@dataclass
class Source:
    name: str
    """The path within the folder, or the file's name."""
    file: Path
    title: str = ""
    """From the manifest."""
    url: str = ""
    license: str = "unknown"


def check(arguments: PDFReportsArguments) -> None:
    """
    Raises:
        ValueError: for a missing source, for fractions that leave nothing, and without pymupdf; says what to do.
    """
    if find_spec("pymupdf") is None:
        raise ValueError('pymupdf is missing: pip install "scratchgpt[pdf]"')
    check_fractions(validation_fraction=arguments.validation_fraction, test_fraction=arguments.test_fraction)
    if not arguments.source:
        raise ValueError("--source is missing: give a folder, .pdf files or a manifest (.yaml)")


def read_manifest(file: Path, folder: Path) -> list[Source]:
    """The reports that a manifest names.

    Raises:
        ValueError: for a file that is no manifest, and for names that would leave the folder; says which.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read as a manifest: {' '.join(str(error).split())}") from error
    entries = content.get("reports") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file} is no manifest: it must hold `reports:`, a list of `title` and `url`")
    sources: dict[str, Source] = {}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
            raise ValueError(f"{file}: entry {number} has no `url`")
        title = str(entry.get("title") or entry["url"])
        name = file_name(title, entry["url"])
        if name in sources:
            raise ValueError(f"{file}: {title!r} has the file name of {sources[name].title!r}: {name}")
        sources[name] = Source(name, folder / name, title, entry["url"], str(entry.get("license") or "unknown"))
    return list(sources.values())


def find_sources(arguments: PDFReportsArguments) -> list[Source]:
    """
    Raises:
        ValueError: for a source that does not exist or holds no PDF.
    """
    output = Path(arguments.output_dir)
    folder = Path(arguments.download_dir or output.with_name(output.name + "_pdfs"))
    sources: list[Source] = []
    for given in map(Path, arguments.source):
        if given.is_dir():
            files = sorted(file for file in given.rglob("*") if file.is_file() and file.suffix.lower() == ".pdf")
            if not files:
                raise ValueError(f"{given} holds no .pdf: give a folder that does")
            sources += [Source(file.relative_to(given).as_posix(), file) for file in files]
        elif given.suffix.lower() in (".yaml", ".yml"):
            sources += read_manifest(given, folder)
        elif given.is_file():
            sources.append(Source(given.name, given))
        else:
            raise ValueError(f"{given} does not exist: give a folder, .pdf files or a manifest as --source")
    names = [source.name for source in sources]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two files are named {repeated[0]}: give a folder that holds both, or rename one")
    return sources[: arguments.max_files]


def download(sources: list[Source], arguments: PDFReportsArguments) -> dict[str, str]:
    """Fetches what has a link.

    Returns:
        By name: why a file is not there.
    """
    downloader = Downloader(
        max_bytes=arguments.max_file_megabytes * 2**20, seconds_between=arguments.seconds_between_requests
    )
    links = [source for source in sources if source.url]
    reasons = {}
    for source in tqdm(links, desc="downloading", unit="file", disable=not links):
        if reason := downloader.get(source.url, source.file):
            reasons[source.name] = reason
    return reasons


def read_all(
    sources: list[Source], failed: dict[str, str], arguments: PDFReportsArguments
) -> list[tuple[Report, str]]:
    """What became of each file, and its SHA-256 (empty where there is no file). The same content is read once."""
    values = asdict(arguments)
    options = Options(**{name: values[name] for name in asdict(Options())})
    limits = Limits(seconds=arguments.max_seconds, megabytes=arguments.max_memory_megabytes, pages=arguments.max_pages)
    first: dict[str, str] = {}
    digests: list[str] = []
    same: dict[str, str] = {}
    for source in sources:
        digest = ""
        if source.name not in failed:
            try:
                with source.file.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                failed[source.name] = f"cannot be read: {error.strerror}"
            if digest and first.setdefault(digest, source.name) != source.name:
                same[source.name] = f"the same file as {first[digest]}"
        digests.append(digest)

    def read(source: Source) -> Report:
        if reason := failed.get(source.name) or same.get(source.name):
            return skipped(reason)
        return read_file(source.file, options, limits)

    with ThreadPoolExecutor(arguments.num_workers) as pool:
        reports = list(tqdm(pool.map(read, sources), total=len(sources), desc="reading PDFs", unit="file"))
    return list(zip(reports, digests, strict=True))


def split_documents(digests: dict[str, str], arguments: PDFReportsArguments) -> dict[str, list[str]]:
    """Names by split, filled in the order of a hash of the file and the seed; at least one where a share is asked for.

    Raises:
        ValueError: when there are fewer documents than splits.
    """
    order = sorted(digests, key=lambda name: (draw(arguments.seed, digests[name]), name))
    splits: dict[str, list[str]] = {"train": []}
    for split, fraction in (("validation", arguments.validation_fraction), ("test", arguments.test_fraction)):
        if fraction:
            count = max(1, round(fraction * len(digests)))
            splits[split], order = sorted(order[:count]), order[count:]
    splits["train"] = sorted(order)
    if not order:
        raise ValueError(
            f"{len(digests)} documents are too few for validation_fraction={arguments.validation_fraction} and "
            f"test_fraction={arguments.test_fraction}: give more, or 0 for a split that is not needed"
        )
    return splits


@dataclass
class Result:
    parts: dict[str, Built]
    manifest: list[dict[str, Any]]
    statistics: list[dict[str, Any]]


def build(arguments: PDFReportsArguments) -> Result:
    check(arguments)
    sources = find_sources(arguments)
    failed = {} if arguments.dry_run else download(sources, arguments)
    read = read_all(sources, failed, arguments)
    manifest = [
        {
            "source": source.name,
            "sha256": digest,
            "pages": report.pages,
            "status": "skipped" if report.reason else "read",
            "reason": report.reason,
            "title": report.title or source.title,
            "url": source.url,
            "license": source.license,
        }
        for source, (report, digest) in zip(sources, read, strict=True)
    ]
    kept = [(s, report, digest) for s, (report, digest) in zip(sources, read, strict=True) if not report.reason]
    if not kept:
        reasons = "; ".join(f"{row['source']}: {row['reason']}" for row in manifest[:5])
        raise ValueError(f"none of {len(manifest)} files could be read ({reasons})")
    duplicates = drop_duplicates((report.sections for _, report, _ in kept), arguments.near_duplicate_threshold)
    rows: dict[str, dict[str, Any]] = {}
    passages: dict[str, list[dict[str, str]]] = {}
    cleaned = []
    for (source, report, _), repeated in zip(kept, duplicates, strict=True):
        title = report.title or source.title or Path(source.name).stem
        identity = Path(source.name).with_suffix("").as_posix()
        text = to_text(Document(title, report.sections))
        common = {"title": title, "source": source.name}
        rows[source.name] = {"id": identity, "text": text, "captions": report.captions, **common}
        pieces = [
            {"section": section.heading, "text": passage, **common}
            for section in report.sections
            for passage in make_passages(section, arguments.passage_words)
            if count_words(passage) >= min(20, arguments.passage_words // 4)
        ]
        passages[source.name] = [{"id": f"{identity}#{number}", **piece} for number, piece in enumerate(pieces)]
        removed = report.removed | {"near-duplicates": repeated}
        cleaned.append(statistics.Cleaned(source.name, report.raw, text, removed))
    measured = statistics.measure(cleaned)
    splits = split_documents({source.name: digest for source, _, digest in kept}, arguments)
    text = Value("string")
    columns = {"id": text, "title": text, "text": text, "captions": [text], "source": text}
    documents = make_dataset({s: [rows[name] for name in names] for s, names in splits.items()}, Features(columns))
    columns = {"id": text, "title": text, "section": text, "text": text, "source": text}
    pieces = {s: [piece for name in names for piece in passages[name]] for s, names in splits.items()}
    record = {"builder": "pdf_reports", **settings(arguments), "files": manifest}
    sizes = statistics.table(measured)
    described = {
        name: Built(
            title=f"Technical reports: {name}",
            description=describe(name, manifest, sizes, arguments),
            data=data,
            license="other",
            build=record,
        )
        for name, data in (("documents", documents), ("passages", make_dataset(pieces, Features(columns))))
    }
    return Result(described, manifest, measured)


def settings(arguments: PDFReportsArguments) -> dict[str, Any]:
    """The arguments that decide what comes out: no paths, nothing of speed."""
    left_out = {"output_dir", "overwrite", "dry_run", "seed", "source", "download_dir", "num_workers"}
    left_out |= {"seconds_between_requests"}
    return {name: value for name, value in asdict(arguments).items() if name not in left_out}


def describe(name: str, manifest: list[dict[str, Any]], sizes: str, arguments: PDFReportsArguments) -> str:
    what = {
        "documents": "A row is a report: its title, its text with Markdown headings, and its captions.",
        "passages": f"A row is a passage of about {arguments.passage_words} words within one section of a report.",
    }[name]
    lines = ["| source | title | pages | licence | SHA-256 |", "| --- | --- | ---: | --- | --- |"]
    for row in manifest:
        if row["status"] == "read":
            link = f"[{row['source']}]({row['url']})" if row["url"] else row["source"]
            title = row["title"].replace("|", "\\|")
            lines.append(f"| {link} | {title} | {row['pages']} | {row['license']} | `{row['sha256'][:16]}` |")
    skipped_rows = [f"- {row['source']}: {row['reason']}" for row in manifest if row["status"] == "skipped"]
    return (
        f"Built by `data_builders/pdf_reports.py`. {what} A report is in one split.\n\n"
        "**The texts belong to the authors of the reports.** Each is under the licence that its source states; where "
        "it is unknown, assume that all rights are reserved. This data set grants none.\n\n"
        "## Sources\n\n"
        + "\n".join(lines)
        + "\n\n"
        + ("Skipped:\n\n" + "\n".join(skipped_rows) + "\n\n" if skipped_rows else "")
        + f"## Cleaning\n\nSizes before, the share that was kept, and the share of the characters by step:\n\n{sizes}"
    )


def write(file: Path, content: str) -> None:
    """The file, whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, file)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(PDFReportsArguments, argv)
    check_arguments(arguments)
    result = build(arguments)
    print(statistics.table(result.statistics))
    finish(arguments, result.parts)
    if not arguments.dry_run:
        folder = Path(arguments.output_dir)
        write(folder / "manifest.json", json.dumps(result.manifest, indent=2, ensure_ascii=False) + "\n")
        write(folder / "statistics.md", statistics.table(result.statistics) + "\n")
        statistics.plot(result.statistics, folder / "statistics.png")
    left_out = [row for row in result.manifest if row["status"] == "skipped"]
    for row in left_out:
        print(f"skipped {row['source']}: {row['reason']}", file=sys.stderr)
    return SOME_SKIPPED if left_out else 0


if __name__ == "__main__":
    run_recipe(lambda: sys.exit(main()))
