"""Names on the Hub: pinned to a revision, clear where they cannot be had, and no network for what is here."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scratchgpt.hub.names import check_source, hub_name
from tests.hub_server import hub_with
from tests.runs import make_workplace, run_here

COMMIT = "0123456789abcdef0123456789abcdef01234567"

LOAD = """
import json, sys
from scratchgpt.adapters import add_adapter, load_adapter, load_base, AdapterArguments
from scratchgpt.hub.model_directory import save_model
from scratchgpt.inference.decoding import load_for_decoding
from scratchgpt.training.bases import base_config, chat_base, own_base
from transformers import AutoTokenizer

model, tokenizer = load_for_decoding(sys.argv[1], dtype="float32")
assert base_config(sys.argv[1]).model_type == "scratchgpt"
if len(sys.argv) > 2:
    adapted = add_adapter(load_base(sys.argv[1]), AdapterArguments())
    save_model(adapted, tokenizer, sys.argv[2])
    load_adapter(sys.argv[2])
print(model(**tokenizer("To be", return_tensors="pt")).logits.sum().item())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return run_here(make_workplace(tmp_path_factory.mktemp("names")), "base") / "final"


def load(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    online = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    return subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, arguments)],
        env={**online, **environment},
        capture_output=True,
        text=True,
    )


def test_a_name_with_a_revision_is_loaded_and_stays_pinned(model: Path, tmp_path: Path) -> None:
    with hub_with({"somebody/base": model}) as (address, asked):
        cache = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
        found = load("somebody/base@main", tmp_path / "adapter", **cache)
        assert found.returncode == 0, found.stderr[-2000:]
        assert asked.count("model.safetensors") == 1
    # The adapter names its base with the commit, for us and for peft.
    base = json.loads((tmp_path / "adapter" / "base.json").read_text())["base"]
    name, _, commit = base.partition("@")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert name == config["base_model_name_or_path"] == "somebody/base"
    assert commit == config["revision"]
    assert len(commit) == 40
    # What is in the cache is found without the Hub; what is not ends in one line.
    again = load(base, HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1")
    assert again.stdout == found.stdout == load(model).stdout
    missing = load("somebody/base@v2.0", HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1")
    assert missing.stderr.splitlines()[-1].startswith(
        "ValueError: somebody/base@v2.0 is not here, and the Hub cannot be"
    )
    assert "hf download somebody/base --revision v2.0" in missing.stderr


def test_a_local_path_never_touches_the_network(model: Path, tmp_path: Path) -> None:
    with socket.socket() as listening:  # never accepts: whoever calls is counted in its queue
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)
        found = load(model, tmp_path / "adapter", HF_ENDPOINT=address, HF_HOME=str(tmp_path / "cache"), **proxies)
        assert found.returncode == 0, found.stderr[-2000:]
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_names_and_paths_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "base").mkdir(parents=True)
    for source in ("runs/base", "owner/name", "owner/name@main", "gpt2@" + COMMIT):
        check_source(source)
    with pytest.raises(ValueError, match="did you mean runs/base"):
        check_source("runs/bas@main")
    assert hub_name(f"/cache/hub/models--owner--a--b/snapshots/{COMMIT}") == f"owner/a--b@{COMMIT}"
    assert hub_name("runs/base") == "runs/base"
