"""Push a model, adapter, tokenizer, data set or page to the Hub.

The client of `huggingface_hub` sends the files. It compares them with what is there, so a push that broke off goes on
when it is started again: neither a file that is in the repository nor a large one that has arrived is sent again.

What goes is the directory as it is, with two exceptions. An adapter names its base by a directory here; on the Hub it
has to be the base's name there. A data set as `save_to_disk` writes it goes as Parquet, which `load_dataset` reads.
"""

import glob
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, HfApi, ModelCard, constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from .card_facts import Facts
from .fingerprints import BASE_FILE, read_base_reference
from .names import check_repo_id
from .push_checks import files_to_push, kind_of
from .seals import MANIFEST, seal

NO_XET = "HF_HUB_DISABLE_XET=1"


class PushError(ValueError):
    """The Hub or the way there failed; what was sent stays there, and a second push goes on from it."""


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    repo_id: str
    """With the owner."""
    url: str
    commit: str
    private: bool
    sent: int
    """Files; the others were there already."""
    there: int
    num_bytes: int
    """Of the files that were sent."""


def repo_type(directory: Path) -> str:
    """Of the Hub's kinds of repositories, the one where a directory belongs."""
    return {"data set": "dataset", "page": "space"}.get(kind_of(directory), "model")


def sizes(directory: Path) -> dict[str, int]:
    """Bytes of each file that goes, by its name in the repository."""
    return {file.relative_to(directory).as_posix(): file.stat().st_size for file in files_to_push(directory)}


def in_bytes(number: float) -> str:
    """For people: 12 bytes, 3.4 kB, 1.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} bytes" if unit == "bytes" else f"{number:.1f} {unit}"


@contextmanager
def as_on_the_hub(directory: Path, repo_id: str, base_repo_id: str | None = None) -> Iterator[Path]:
    """A directory that holds what goes to the Hub: `directory` itself, or a temporary one.

    Args:
        base_repo_id: of an adapter, its base's name on the Hub; needed where the base is a directory here.

    Raises:
        ValueError: for an adapter without a base on the Hub.
    """
    kind = kind_of(directory)
    if base_repo_id is not None and kind != "adapter":
        raise ValueError(f"{directory} is no adapter: leave out base_repo_id")
    if base_repo_id is not None:
        check_repo_id(base_repo_id.partition("@")[0])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pushed"
        if kind == "adapter":
            folder.mkdir()
            write_adapter(directory, folder, base_repo_id or base_on_the_hub(directory))
            yield folder
        elif kind == "data set" and (directory / "dataset_dict.json").is_file():
            _write_parquet(directory, folder, repo_id)
            yield folder
        else:
            yield directory


def base_on_the_hub(adapter: Path) -> str:
    """The base's name on the Hub, as the adapter has it: of one trained on a base from there, with the commit.

    Raises:
        ValueError: where the base is a directory here.
    """
    name = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    if (adapter / BASE_FILE).is_file():
        name = read_base_reference(adapter).base
    with suppress(ValueError):
        if not Path(name).exists() and not Path(name).is_absolute():
            check_repo_id(name.partition("@")[0])
            return name
    raise ValueError(
        f"the base of {adapter} is the directory {Path(name).name}, which nobody else has: push it first, and "
        "give its name there with --base_repo_id"
    )


def write_adapter(adapter: Path, folder: Path, base: str) -> None:
    """A copy of an adapter that names its base otherwise.

    Args:
        folder: an empty directory.
        base: owner/name on the Hub, with @revision if need be, or a directory relative to `folder`, as ./base.
    """
    for file in files_to_push(adapter):
        copy = folder / file.relative_to(adapter)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    repo_id, _, revision = base.partition("@")
    named = {"base_model_name_or_path": repo_id, "revision": revision or None}  # peft has the two apart
    for name, fields in (("adapter_config.json", named), (BASE_FILE, {"base": base})):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text(encoding="utf-8")) | fields
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (folder / "README.md").is_file():
        card: Any = ModelCard.load(folder / "README.md")
        card.data.base_model = repo_id
        card.text = card.text.replace(f"`{Facts(adapter).base}`", f"`{base}`")  # a directory that nobody else has
        card.save(folder / "README.md")
    if (folder / MANIFEST).is_file():
        seal(folder)


def _write_parquet(directory: Path, folder: Path, repo_id: str) -> None:
    from datasets import load_from_disk

    data: Any = load_from_disk(str(directory))
    (folder / "data").mkdir(parents=True)
    for name, split in data.items():
        split.to_parquet(str(folder / "data" / f"{name}.parquet"))
    for file in files_to_push(directory):
        if file.parent == directory and file.name not in ("dataset_dict.json", MANIFEST):
            shutil.copyfile(file, folder / file.name)
    if (folder / "README.md").is_file():
        card: Any = DatasetCard.load(folder / "README.md")
        files = [{"split": str(name), "path": f"data/{name}.parquet"} for name in data]
        card.data.configs = [{"config_name": "default", "data_files": files}]
        card.text = card.text.replace("import load_from_disk", "import load_dataset").replace(
            'load_from_disk("this folder")', f'load_dataset("{repo_id}")'
        )
        card.save(folder / "README.md")


def push(
    directory: Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    commit_message: str | None = None,
) -> Pushed:
    """Sends what `files_to_push` of `directory` gives to the Hub, into the repository's root, and nothing is deleted.

    Looks at nothing: `check_before_push` comes first.

    Args:
        private: of a repository that is made now; one that is there stays as it is.
        revision: a branch, made from main where it is not there.

    Raises:
        PushError: one line that says what failed and what to do.
    """
    api, kind, pushed = HfApi(), repo_type(directory), sizes(directory)
    message = commit_message or f"Upload {kind_of(directory)}"
    where: dict[str, Any] = {"repo_id": repo_id, "repo_type": kind}
    try:
        space_sdk = "static" if kind == "space" else None
        url = api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk=space_sdk)
        where["repo_id"] = url.repo_id
        if revision is not None and revision != constants.DEFAULT_REVISION and not revision.startswith("refs/"):
            api.create_branch(**where, branch=revision, exist_ok=True)
        info: Any = api.repo_info(**where, revision=revision)
        new = _not_there(api, directory, pushed, {**where, "revision": revision})
        commit = str(info.sha)
        if new:
            patterns = [glob.escape(name) for name in new]
            given: dict[str, Any] = {**where, "revision": revision, "commit_message": message}
            commit = api.upload_folder(folder_path=directory, allow_patterns=patterns, **given).oid
    except Exception as error:  # of three libraries, with no common class
        raise PushError(
            f"the push of {directory} to {where['repo_id']} stopped: {in_one_line(error, repo_id)}. Start it again, "
            "and it goes on: what has arrived is not sent again"
        ) from error
    num_bytes = sum(pushed[name] for name in new)
    return Pushed(url.repo_id, str(url), commit, bool(info.private), len(new), len(pushed) - len(new), num_bytes)


def _not_there(api: HfApi, directory: Path, pushed: dict[str, int], where: dict[str, Any]) -> list[str]:
    """The files that the repository lacks, or has with other bytes."""
    there: dict[str, Any] = {}
    with suppress(EntryNotFoundError, RevisionNotFoundError):  # of a repository without a file
        there = {each.path: each for each in api.list_repo_tree(**where, recursive=True)}
    return [
        name
        for name, size in pushed.items()
        if name not in there or there[name].size != size or not _same(directory / name, there[name])
    ]


def _same(file: Path, remote: Any) -> bool:
    """By the SHA-256 of a large file, or git's hash of a small one."""
    digest = hashlib.sha256() if remote.lfs else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest() == (remote.lfs.sha256 if remote.lfs else remote.blob_id)


def in_one_line(error: BaseException, repo_id: str) -> str:
    """What failed, for people, and the remedy: of an error of the client, of the connection, or of xet."""
    causes: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in causes:
        causes.append(each)
        each = each.__cause__ or each.__context__
    for cause in causes:
        if isinstance(cause, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set: unset it"
        if isinstance(cause, HfHubHTTPError):
            return _of_status(cause, repo_id)
        if isinstance(cause, json.JSONDecodeError):
            return "what answered is not the Hub: look at HF_ENDPOINT, and whether the network asks for a login"
    words = " ".join(" ".join(f"{type(cause).__name__}: {cause}" for cause in causes).split())
    if "xet" in words.lower() or any(type(cause).__module__.startswith("hf_xet") for cause in causes):
        return f"the server has no xet, or it cannot be reached: try again with {NO_XET} in the environment ({error})"
    # Which file, and of the cause why.
    said = dict.fromkeys(" ".join(str(cause).split()).rstrip(".") or type(cause).__name__ for cause in causes[:2])
    return ": ".join(said)


def _of_status(error: HfHubHTTPError, repo_id: str) -> str:
    status, says = error.response.status_code, " ".join((error.server_message or "").split())
    says = f" ({says})" if says else ""
    if status == 401:
        if get_token() is None:
            return f"the Hub asks for a token{says}: `hf auth login`, or set HF_TOKEN"
        return f"the Hub does not accept the token{says}: make another with write access, then `hf auth login`"
    if status == 403:
        return f"the token may not write to {repo_id}{says}: give it write access, or give another owner"
    if status == 404:
        return f"the Hub does not find it{says}: check the name and the revision, and that the token may read it"
    if status == 429:
        return f"too many requests{says}: wait, then try again"
    if status >= 500:
        return f"the Hub has a fault of its own, {status}{says}: try again later"
    return f"the Hub refuses it with {status}{says}"
