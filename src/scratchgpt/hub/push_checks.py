"""What is looked at before a directory goes to the Hub: what it holds, what must not leave, and whether it loads.

`check_before_push` is the whole of it. A file that is on the Hub has been seen by others, whatever is done later; so
anything doubtful is refused, and the message names the file and what to do.
"""

import getpass
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from .card_facts import BUILD, PAGE, is_export
from .cards import CARD, check_card
from .names import local_copy

Kind = Literal["model", "adapter", "tokenizer", "data set", "page", "export"]

NOT_PUSHED = {"training_state", ".git", ".cache", "__pycache__", ".DS_Store"}
"""Files and folders that stay here: what only resuming needs, and what other programs leave."""

PICKLES = {".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5"}
"""Formats that run code when they are opened, or can; weights are in safetensors."""

DATA = {".jsonl", ".parquet", ".csv", ".tsv", ".arrow", ".txt"}
"""What a directory of data that no builder made consists of. Its texts are the user's own: they may name any path."""

VOCABULARIES = {"tokenizer.json", "vocab.json", "merges.txt"}
"""Their tokens are pieces of texts."""

SECRET_FILES = re.compile(
    r"\.env(\..*)?|\.netrc|\.git-credentials|\.npmrc|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|.*\.(pem|key|p12)"
)

SECRETS = {
    "a token of the Hub": r"(?<![A-Za-z0-9])(hf|api_org)_[A-Za-z0-9]{20,}",
    "an API key": r"(?<![A-Za-z0-9])sk-([A-Za-z0-9]{20,}|(proj|ant|or|svcacct)[A-Za-z0-9_-]{20,})"
    r"|\bAIza[A-Za-z0-9_-]{35}|\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "an AWS key": r"\b(AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{22,}|\bglpat-[A-Za-z0-9_-]{20,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
}
WHOLE_KEY = re.compile(r"PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")
"""In a text that is data: manuals show the first line of one."""
SECRET = re.compile("|".join(f"({pattern})" for pattern in (re.sub(r"\((?!\?)", "(?:", p) for p in SECRETS.values())))

URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>)\]]*")

FOLDERS = (
    "home|Users|root|tmp|mnt|media|work|workspace|opt|srv|var|private|scratch|Volumes|content|kaggle|data|usr|etc"
)
ABSOLUTE = re.compile(
    rf"(?<![\w.~/\\)\]-])/(?:{FOLDERS})/[\w.~-]+"
    r"|(?<!\w)[A-Za-z]:\\{1,2}(?:Users\b|[A-Za-z0-9_ -]+\\)"
)
"""An absolute path of Unix, whose first part is a usual one, or of Windows. A fraction (and/or) is none."""

ENOUGH_TO_TELL = 3
"""Letters of a user name; a shorter one may be a part of anything."""

ANSWER = """
import json, sys
from importlib.abc import MetaPathFinder

class NoScratchGPT(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "scratchgpt":
            raise ModuleNotFoundError(name)

directory, kind, out, local = sys.argv[1:]
if local:
    import scratchgpt
else:
    sys.meta_path.insert(0, NoScratchGPT())
import torch, transformers
from safetensors.torch import save_file
torch.set_num_threads(1)

remote = {"trust_remote_code": not local}
tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **remote)
inputs = {"input_ids": torch.tensor([tokenizer("To be, or not to be: 12 + 3 = 15.")["input_ids"]])}
if kind != "tokenizer":
    base, config, adapter = directory, {}, None
    if kind == "adapter":
        adapter = json.load(open(directory + "/adapter_config.json"))
        base, config, task = json.loads(sys.stdin.read())
        if "id2label" in config:
            config["id2label"] = {int(number): label for number, label in config["id2label"].items()}
    else:
        task = json.load(open(directory + "/config.json"))["architectures"][0]
    auto = next(
        (getattr(transformers, "AutoModelFor" + name) for name, ends in {
            "SequenceClassification": ("ForSequenceClassification", "SEQ_CLS"),
            "TokenClassification": ("ForTokenClassification", "TOKEN_CLS"),
            "CausalLM": ("ForCausalLM", "LMHeadModel", "CAUSAL_LM"),
        }.items() if task.endswith(ends)),
        transformers.AutoModel,
    )
    model = auto.from_pretrained(base, dtype=torch.float32, **config, **remote)
    if adapter is not None:
        import peft
        model = peft.PeftModel.from_pretrained(model, directory)
    with torch.no_grad():
        inputs["logits"] = model.eval()(input_ids=inputs["input_ids"])[0].contiguous()
assert local or "scratchgpt" not in sys.modules
save_file(inputs, out)
"""
"""Runs in a process of its own, with this package or without it, and writes what the model answers."""


def kind_of(directory: Path) -> Kind:
    """
    Raises:
        ValueError: for a directory that holds nothing of what can be pushed.
    """
    if not directory.is_dir():
        raise ValueError(
            f"{directory} is no directory: give that of a model, adapter, tokenizer, data set, page or export"
        )
    if is_export(directory):
        return "page" if (directory / PAGE).is_file() else "export"
    if (directory / "adapter_config.json").is_file():
        return "adapter"
    if (directory / "config.json").is_file():
        return "model"
    if (directory / "tokenizer.json").is_file():
        return "tokenizer"
    if (directory / "final").is_dir():
        raise ValueError(f"{directory} is a run: give its model, {directory / 'final'}")
    if any(file.suffix in DATA or file.name == "dataset_dict.json" for file in _walk(directory)):
        return "data set"
    raise ValueError(f"{directory} holds no model, adapter, tokenizer or data set")


def files_to_push(directory: Path) -> list[Path]:
    """The files of `directory` that would go, sorted; training state and other programs' leftovers stay.

    The seal of a checkpoint counts its training state, and so stays with it.

    Raises:
        ValueError: for a link, or anything else that is not a plain file.
    """
    unsealed = (directory / "training_state").exists()
    files = [file for file in _walk(directory) if not (unsealed and file == directory / "manifest.json")]
    for file in files:
        if file.is_symlink():
            raise ValueError(f"{file} is a link: put the file itself there, or remove it")
        if not stat.S_ISREG(file.stat().st_mode):
            raise ValueError(f"{file} is no plain file: remove it")
    return files


def _walk(directory: Path) -> Iterator[Path]:
    """Files, and links whatever they lead to."""
    for path in sorted(directory.iterdir()):
        if path.name in NOT_PUSHED:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def check_before_push(directory: Path, folder: Path | None = None) -> None:
    """Everything that must hold before anything of `directory` goes to the Hub.

    Args:
        folder: what goes, where that is not the directory as it is (`as_on_the_hub`).

    Raises:
        ValueError: one line that names the file and the remedy.
    """
    try:
        check_files(folder or directory)
    except ValueError as error:  # what goes may be a temporary copy, of which nobody has heard
        raise ValueError(str(error).replace(str(folder or directory), str(directory))) from error
    check_answers(directory)


def check_files(directory: Path, with_card: bool = True) -> None:
    """The part of `check_before_push` that only reads: the card, formats, links, secrets, paths and user names.

    Args:
        with_card: a checkpoint has none.

    Raises:
        ValueError: as `check_before_push`.
    """
    kind, files = kind_of(directory), files_to_push(directory)
    for file in files:
        name = file.relative_to(directory).as_posix()
        if SECRET_FILES.fullmatch(file.name):
            raise ValueError(f"{name} in {directory} is a file for secrets: remove it")
        if file.suffix.lower() in PICKLES:
            raise ValueError(f"{name} in {directory} can run code when it is opened: weights go as safetensors only")
    if kind in ("model", "adapter") and not any(file.suffix == ".safetensors" for file in files):
        raise ValueError(f"{directory} holds no safetensors: its weights are missing")
    # A page's run-time is as it came from its packages; one of them knows a folder of an emulated system.
    of_packages = [directory / "runtime"] if kind == "page" else []
    for file in files:
        if file.parent in of_packages:
            continue
        if found := private_text(file, texts_are_data=kind == "data set"):
            raise ValueError(f"{file.relative_to(directory).as_posix()} in {directory} holds {found}: take it out")
    if with_card and (problems := _card_problems(directory, kind)):
        raise ValueError(f"the card of {directory} is not complete: {'; '.join(problems)}")


def _card_problems(directory: Path, kind: Kind) -> list[str]:
    if kind in ("page", "export") or (
        kind == "data set" and not (directory / BUILD).is_file()
    ):  # whoever made it describes it
        return [] if (directory / CARD).is_file() else [f"{CARD} is missing: write what it is"]
    return check_card(directory)


def private_text(file: Path, texts_are_data: bool = False) -> str | None:
    """The first secret, absolute path or user name in a text file, in words and with its line; None: there is none.

    Of safetensors the header is read, of Parquet every text. Other files that are not text are passed over.

    Args:
        texts_are_data: whether tables and texts are somebody's data, in which only this user's own folder counts.
    """
    if file.suffix == ".parquet":
        return _secret_in_rows(file)
    if file.suffix == ".safetensors":
        lines = enumerate([_header(file)], 1)
    elif _is_text(file):
        lines = enumerate(_lines(file), 1)
    else:
        return None
    any_path = not (texts_are_data and file.suffix in DATA) and file.name not in VOCABULARIES
    own = own_places()
    for number, line in lines:
        if match := SECRET.search(line):
            what = list(SECRETS)[(match.lastindex or 1) - 1]
            return f"{what} in line {number}, beginning with {match[0][:6]!r}"
        if "/" not in line and "\\" not in line and "@" not in line:
            continue
        text = URL.sub("", line) if "://" in line and "file://" not in line else line
        if match := own.search(text):
            return f"your own folder or user name in line {number}: {match[0]!r}"
        if any_path and (match := ABSOLUTE.search(text)):
            return f"an absolute path in line {number}: {match[0]!r}"
    return None


def _secret_in_rows(file: Path) -> str | None:
    """In a Parquet file: the first secret, or place of this user's, in any of its texts."""
    from pyarrow.parquet import ParquetFile

    own, row = own_places(), 0
    for batch in ParquetFile(file).iter_batches():
        for number, values in enumerate(batch.to_pylist(), row + 1):
            for text in _texts(values):
                found = SECRET.search(text)
                if found and (found.lastindex != len(SECRETS) or WHOLE_KEY.search(text)):
                    return f"{list(SECRETS)[(found.lastindex or 1) - 1]} in row {number}, beginning {found[0][:6]!r}"
                if found := own.search(URL.sub("", text)):
                    return f"your own folder or user name in row {number}: {found[0]!r}"
        row += batch.num_rows
    return None


def _texts(value: object) -> Iterator[str]:
    """Every text in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def own_places() -> re.Pattern[str]:
    """The home directory, and the user's name where it is a part of a path or of an address."""
    places = [re.escape(str(Path.home())) + r"(?![\w-])"] if len(Path.home().parts) > 1 else []
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user without an entry, as in containers
        name = ""
    if len(name) >= ENOUGH_TO_TELL and name != "root":
        places += [rf"(?<=[/\\~]){re.escape(name)}(?![\w-])", rf"(?<![\w.-]){re.escape(name)}@"]
    return re.compile("|".join(places) or r"(?!)")


def _is_text(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(1 << 13)
    return b"\0" not in start and file.suffix not in {".parquet", ".arrow", ".png", ".jpg", ".pdf", ".gguf", ".onnx"}


def _lines(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace") as stream:
        yield from stream


def _header(file: Path) -> str:
    """Of safetensors: eight bytes with the length, then JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return stream.read(min(length, 1 << 26)).decode("utf-8", errors="replace")


def check_answers(directory: Path) -> None:
    """Makes sure that it loads in a new process without this package, offline, and answers as it does with it.

    Raises:
        ValueError: names what differs, or the error there.
    """
    kind = kind_of(directory)
    if kind in ("data set", "page", "export"):  # the last two were tried when they were written
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = {local: _answer(directory, kind, Path(folder), local) for local in ("", "local")}
        failed = {}
        for local, run in runs.items():
            errors = run.communicate(_base_of(directory) if kind == "adapter" else "")[1]
            if run.returncode:
                failed[local] = ([line.strip() for line in errors.splitlines() if line.strip()] or ["killed"])[-1]
        if failed:
            where = "without this package" if "local" not in failed else "here"
            raise ValueError(f"{directory} does not load {where}: {failed.get('local', failed.get(''))}")
        from safetensors.torch import load_file

        there, here = (load_file(Path(folder) / f"answers{local}.safetensors") for local in runs)
        for name in here:
            if not here[name].equal(there[name]):
                raise ValueError(
                    f"{directory} answers otherwise without this package (its {name}): its code is not today's; save "
                    "it again"
                )


def _answer(directory: Path, kind: str, folder: Path, local: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ANSWER, str(directory.absolute()), kind]
    package = str(Path(__file__).absolute().parents[2])
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(folder / "modules"),
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [*command, str(folder / f"answers{local}.safetensors"), local],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _base_of(adapter: Path) -> str:
    """For `ANSWER`: the base's place, the fields that the adapter adds to its configuration, and the task."""
    from .fingerprints import BASE_FILE, read_base_reference

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    base, fields = config["base_model_name_or_path"], {}
    if (adapter / BASE_FILE).is_file():
        reference = read_base_reference(adapter)
        base, fields = reference.base, {k: v for k, v in reference.config.items() if v is not None}
    place = os.path.abspath(local_copy(base))  # of a base on the Hub, a copy of the pinned commit
    return json.dumps([place, fields, config["task_type"]])
