"""What comes out of PDFs, beside other extractors: `python benchmarks/pdf_quality.py [--data folder]`.

The six technical reports of the shared data, and for each candidate and report:

- junk lines: share of the lines that hold no prose and are no heading: mostly digits and signs, under three words, a
  stamp, `(cid:…)`, or a line that comes back four times with other digits (headers, page numbers);
- broken sentences: share of the paragraphs (where a candidate leaves no empty lines: of the lines) of eight words or
  more that begin in lower case or end without a full stop;
- unknown words: share of the words that the reports' own words do not have (those of all six, hyphens at line ends
  mended in both ways, and what the seed's corpus has three times): cut, glued and damaged words;
- headings kept: share of the numbered headings that stand on a line of their own, with their number or without. The
  reference is `pdf_headings.json`, which was read off the pages;
- sections out of order: numbered headings that come before their predecessor;
- seconds: processor time for the report.

- bits per byte of the text under `--model`, a model that has read none of these reports: debris, cut words and torn
  sentences surprise it. Without `--model` they are left out.

`the seed's own` is the text that the seed project published; it holds three of the six. Candidates that are not
installed are left out.
"""

import argparse
import importlib
import itertools
import json
import math
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_builders.pdf.document import Options, to_text
from data_builders.pdf.extraction import extract
from records import RESULTS, SHARED_DATA, append, machine
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods, prefix_token
from scratchgpt.evaluation.text import tokenize, windows
from scratchgpt.hub.fingerprints import hash_weights
from scratchgpt.inference.decoding import load_for_decoding

HEADINGS = Path(__file__).resolve().parent / "pdf_headings.json"
WORD = re.compile(r"[^\W\d_]+")
SEED_TITLES = {
    "LLaMA": "LLaMA: Open and Efficient",
    "DeepSeek_R1": "DeepSeek-R1: Incentivizing",
    "Qwen3_Technical_Report": "Qwen3 Technical Report",
}


def ours(file: Path) -> str:
    return to_text(extract(file, Options()).document)


def plain(file: Path) -> str:
    pymupdf = importlib.import_module("pymupdf")
    with pymupdf.open(file) as pdf:
        return "\n".join(page.get_text() for page in pdf)


def markdown(file: Path) -> str:
    return importlib.import_module("pymupdf4llm").to_markdown(str(file), show_progress=False)


def edgeparse(file: Path) -> str:
    return importlib.import_module("edgeparse").convert(str(file), format="markdown")


def seed_text(corpus: str, name: str) -> str | None:
    """The seed's text of a report: from its title to the title before the next abstract."""
    if name not in SEED_TITLES:
        return None
    start = corpus.index(SEED_TITLES[name])
    abstracts = [match.start() for match in re.finditer(r"^Abstract\s*$", corpus[start:], re.M)]
    end = abstracts[1] if len(abstracts) > 1 else len(corpus) - start
    return corpus[start : start + end].rsplit("\n", 2)[0].replace("\r", "")


def strip_marks(line: str) -> str:
    """A line without Markdown's marks."""
    return re.sub(r"^[#>\s]+|[*_`]{1,3}", "", line).strip()


def normal(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


def measure(text: str, headings: list[str], known: set[str]) -> dict[str, float]:
    lines = [line for line in map(strip_marks, text.splitlines()) if line]
    # The number may be there or not: plain text has it on a line of its own.
    wanted = {}
    for place, heading in enumerate(headings):
        wanted[normal(heading)] = place
        wanted.setdefault(normal(re.sub(r"^(Appendix )?[\w.]+:? ", "", heading)), place)
    repeated = Counter(re.sub(r"\d+", "#", line) for line in lines)

    def is_junk(line: str) -> bool:
        if normal(line) in wanted:
            return False
        letters = sum(character.isalpha() for character in line)
        if letters < 0.5 * len(line.replace(" ", "")) or "(cid:" in line or re.match(r"arXiv:\d", line):
            return True
        if re.match(r"abstract$|appendix$|acknowledge?ments?$|(\d+|[A-Z])(\.\d+)*\.? ", line, re.I):
            return False
        short = len(WORD.findall(line)) < 3 and not re.search("[\u3400-\u9fff]{4}", line)
        return short or ("|" in line[1:] and line.count("|") > 2) or repeated[re.sub(r"\d+", "#", line)] >= 4

    units = re.split(r"\n\s*\n", text) if text.count("\n\n") > 20 else text.splitlines()
    prose = [strip_marks(" ".join(unit.split())) for unit in units]
    prose = [unit for unit in prose if len(unit.split()) >= 8 and normal(unit) not in wanted]
    broken = [unit for unit in prose if unit[0].islower() or not re.search(r"[.!?:。！？：)）\]\"”’]$", unit)]
    words = WORD.findall(text.casefold())
    unknown = [word for word in words if word not in known and not re.search("[\u3400-\u9fff]", word)]
    places = list(dict.fromkeys(wanted[normal(line)] for line in lines if normal(line) in wanted))
    return {
        "junk lines, %": 100 * sum(map(is_junk, lines)) / max(1, len(lines)),
        "broken sentences, %": 100 * len(broken) / max(1, len(prose)),
        "unknown words, per thousand": 1000 * len(unknown) / max(1, len(words)),
        "headings kept, %": 100 * len(places) / max(1, len(headings)),
        "sections out of order": float(sum(b < a for a, b in itertools.pairwise(places))),
    }


def bits_per_byte(text: str, model: LogLikelihoods, tokenizer: Any) -> float:
    (tokens,) = tokenize(tokenizer, [text])
    pieces = list(windows(tokens, prefix_token(tokenizer), model.context, model.context))
    nats = -sum(score.log_likelihood for score in model.score(pieces))
    return nats / math.log(2) / len(text.encode())


def vocabulary(raw: dict[str, str], corpus: str) -> set[str]:
    """The words of all reports, with line ends mended in both ways, and what the corpus has three times."""
    known: set[str] = set()
    for text in raw.values():
        text = unicodedata.normalize("NFKC", text).casefold()
        known.update(WORD.findall(re.sub(r"(\w+)-\n(\w+)", r"\1\2", text)))
        known.update(WORD.findall(re.sub(r"[^\W\d_]+-\n[^\W\d_]+", " ", text)))
    counts = Counter(WORD.findall(corpus.casefold()))
    return known | {word for word, count in counts.items() if count >= 3}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the text of PDFs beside other extractors.")
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="folder of real data")
    parser.add_argument("--model", help="a model that has read none of the reports, for bits per byte")
    parser.add_argument("--output", type=Path, default=RESULTS / "pdf_quality.jsonl")
    arguments = parser.parse_args()
    files = {file.stem: file for file in sorted((arguments.data / "pdfs").glob("*.pdf"))}
    if not files:
        sys.exit(
            f"{arguments.data}/pdfs holds no PDFs: --data, or SCRATCHGPT_SHARED_DATA, names the folder of real data"
        )
    zstandard = importlib.import_module("zstandard")
    with zstandard.open(arguments.data / "seed/combined_clean.txt.zst", "rt", encoding="utf-8") as stream:
        corpus = stream.read()
    scorer, weights = None, {}
    if arguments.model is not None:
        model, tokenizer = load_for_decoding(arguments.model, dtype="float32")
        scorer, weights = (LogLikelihoods(model), tokenizer), {"weights": hash_weights(model)}
    headings = json.loads(HEADINGS.read_text(encoding="utf-8"))
    known = vocabulary({name: plain(file) for name, file in files.items()}, corpus)
    candidates: dict[str, Callable[[Path], str | None]] = {"scratchgpt": ours, "pymupdf": plain}
    packages = ["pymupdf"]
    for package, function in (("pymupdf4llm", markdown), ("edgeparse", edgeparse)):
        try:
            importlib.import_module(package)
        except ImportError:
            print(f"{package} is not installed and is left out")
            continue
        candidates[package] = function
        packages.append(package)
    candidates["the seed's own"] = lambda file: seed_text(corpus, file.stem)
    measurements: list[dict[str, Any]] = []
    for candidate, function in candidates.items():
        for name, file in files.items():
            started = time.process_time()
            text = function(file)
            seconds = time.process_time() - started
            if text is None:
                continue
            values = measure(text, headings[name], known)
            if candidate != "the seed's own":
                values["seconds"] = seconds
            if scorer is not None:
                values["bits per byte"] = bits_per_byte(text, *scorer)
            measurements += [
                {
                    "benchmark": "Text of PDFs",
                    "case": name,
                    "candidate": candidate,
                    "metric": metric,
                    "value": round(value, 3),
                    "decimals": 2 if metric == "bits per byte" else 1,
                    "characters": len(text),
                }
                for metric, value in values.items()
            ]
            print(candidate, name, {metric: round(value, 2) for metric, value in values.items()})
    facts = machine(*packages) | weights
    append((each | facts for each in measurements), arguments.output)


if __name__ == "__main__":
    main()
