"""Push to a Hub on the loopback interface with the real client, and load from it where this package is not."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Features, Value, load_from_disk
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from recipes import push_to_hub
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.adapters import load_adapter
from scratchgpt.data.builder import BuilderArguments, Built, finish, make_dataset
from scratchgpt.hub import background_push
from scratchgpt.hub.cards import write_card
from scratchgpt.hub.model_directory import load_model, save_model
from scratchgpt.hub.push import NO_XET, PushError, as_on_the_hub, push
from scratchgpt.hub.push_checks import check_before_push, check_files, files_to_push
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from tests.hub_server import TOKEN, Fault, Handler, Hub, loopback_hub
from tests.runs import SENTENCES, losses, make_workplace, run_here

CARD = "---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n# A model\n"

# In a process of its own, without this package: a model, an adapter and a data set from the Hub, pinned.
STRANGER = """
import json, sys
from importlib.abc import MetaPathFinder

class NoScratchGPT(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "scratchgpt":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoScratchGPT())
import datasets, peft, torch, transformers
from safetensors.torch import save_file

commits = json.loads(sys.argv[1])
found = {}
pinned = {"revision": commits["model"], "trust_remote_code": True}
tokenizer = transformers.AutoTokenizer.from_pretrained("somebody/model", **pinned)
inputs = tokenizer("To be, or not to be", return_tensors="pt")
model = transformers.AutoModelForCausalLM.from_pretrained("somebody/model", **pinned)
with torch.no_grad():
    found["model"] = model.eval()(**inputs).logits
    adapted = peft.PeftModel.from_pretrained(model, "somebody/adapter", revision=commits["adapter"])
    found["adapter"] = adapted.eval()(**inputs).logits
assert adapted.active_peft_config.base_model_name_or_path == "somebody/model"
data = datasets.load_dataset("somebody/data", revision=commits["data"])
assert "scratchgpt" not in sys.modules
rows = {split: data[split].to_list() for split in data}
json.dump({"rows": rows, "labels": data["train"].features["label"].names}, open(sys.argv[2] + "/data.json", "w"))
save_file(found, sys.argv[2] + "/found.safetensors")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    tokenizer = to_transformers(BPETokenizer.train(SENTENCES * 9, vocab_size=300))
    torch.manual_seed(0)
    config = ScratchGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(ScratchGPTForCausalLM(config), tokenizer, folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "adapter"
    base = load_model(ScratchGPTForCausalLM, model)
    adapted: Any = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    from transformers import AutoTokenizer

    save_model(adapted, AutoTokenizer.from_pretrained(model), folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "data"
    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=["bad", "good"]), "source": Value("string")}
    )
    rows = [{"text": f"A text about /home/somebody, {i}", "label": i % 2, "source": str(i)} for i in range(9)]
    dataset = make_dataset({"train": rows[:7], "validation": rows[7:]}, features)
    finish(
        BuilderArguments(output_dir=str(folder)),
        {"": Built(title="Texts", description="Made.", data=dataset, build={})},
    )
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """As if HF_ENDPOINT and so on had been set before the client was imported."""
    with loopback_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its tries
        yield found


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "model")


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**tokenizer("To be, or not to be", return_tensors="pt")).logits


def test_what_was_pushed_answers_elsewhere(model: Path, adapter: Path, data: Path, hub: Hub, tmp_path: Path) -> None:
    """By the recipe, with all that it looks at; loaded at a pinned revision, after main has changed."""
    push_to_hub.main([str(model), "--repo_id", "somebody/model"])
    push_to_hub.main([str(adapter), "--repo_id=somebody/adapter", "--base_repo_id=somebody/model"])
    push_to_hub.main([str(data), "--repo_id=somebody/data", "--private=false"])
    assert {name: each.private for name, each in hub.repositories.items()} == {
        "models/somebody/model": True,
        "models/somebody/adapter": True,
        "datasets/somebody/data": False,
    }
    commits = {name.rpartition("/")[2]: each.branches["main"] for name, each in hub.repositories.items()}
    hub.commit(hub.repositories["models/somebody/model"], "main", {"model.safetensors": b"other"}, [], "spoilt")

    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        **dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "0"),
    }
    command = [sys.executable, "-I", "-c", STRANGER, json.dumps(commits), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr[-3000:]

    found = load_file(tmp_path / "found.safetensors")
    adapted, tokenizer = load_adapter(adapter)
    torch.testing.assert_close(found["adapter"], logits(adapted, tokenizer))  # merged here, beside the base there
    assert torch.equal(found["model"], logits(load_model(ScratchGPTForCausalLM, model), tokenizer))
    assert not torch.equal(found["model"], found["adapter"])
    loaded, saved = json.loads((tmp_path / "data.json").read_text()), load_from_disk(str(data))
    assert loaded["rows"] == {name: split.to_list() for name, split in saved.items()}
    assert loaded["labels"] == ["bad", "good"]
    card = hub.files("datasets/somebody/data")["README.md"].decode()
    assert 'load_dataset("somebody/data")' in card
    assert "base_model: somebody/model" in hub.files("models/somebody/adapter")["README.md"].decode()


def test_a_page_goes_to_a_static_space(hub: Hub, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    for name, content in {
        "index.html": "<p>", "model/page.json": "{}", "README.md": "---\nsdk: static\n---\n",
        "runtime/ort.mjs": 'home = "/home/web_user"', "model/model.onnx": "\0",
    }.items():  # fmt: skip
        (page / name).parent.mkdir(parents=True, exist_ok=True)
        (page / name).write_text(content)
    with pytest.raises(ValueError, match="add --space"):
        push_to_hub.main([str(page), "--repo_id", "somebody/page"])
    with pytest.raises(ValueError, match="--space is for a page"):
        push_to_hub.main([str(model), "--repo_id", "somebody/page", "--space"])
    push_to_hub.main([str(page), "--repo_id", "somebody/page", "--space"])
    assert list(hub.repositories) == ["spaces/somebody/page"]
    found = hub.files("spaces/somebody/page")
    assert {"index.html", "model/page.json", "model/model.onnx", "runtime/ort.mjs"} < found.keys()
    (page / "page.js").write_text('read("/home/somebody/model")')
    with pytest.raises(ValueError, match="an absolute path"):
        push_to_hub.main([str(page), "--repo_id", "somebody/page", "--space"])


def test_push_again_sends_what_is_new(model: Path, copy: Path, hub: Hub) -> None:
    first = push(model, "somebody/model")
    assert (first.sent, first.there) == (len(files_to_push(model)), 0)
    before = hub.uploaded
    assert push(model, "somebody/model").sent == 0
    (copy / "README.md").write_text(f"{CARD}\nMore.\n")
    again = push(copy, "somebody/model", revision="draft", commit_message="More")
    assert (again.sent, again.there) == (1, first.sent - 1)
    assert hub.uploaded == before
    repository = hub.repositories["models/somebody/model"]
    assert repository.messages[-1] == "More"
    assert repository.branches == {"main": first.commit, "draft": again.commit}
    assert hub.files("models/somebody/model")["README.md"] == CARD.encode()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("POST .*/commit/", 500, "out of order"), "a fault of its own, 500 (out of order)"),
        (Fault("POST .*/commit/", None), "disconnected"),
        (Fault("POST .*/commit/", 403, "You have exceeded your storage quota"), "exceeded your storage quota"),
        (Fault("PUT /objects", 503), "503"),
        (Fault("PUT /objects", None), "Error while uploading"),
        (Fault("POST .*/objects/batch", 413, "Private storage limit reached"), "Private storage limit reached"),
        (Fault("POST .*/preupload", 429, "slow down"), "too many requests (slow down): wait"),
    ],
    ids=lambda value: f"{value.request[-9:]} {value.status}" if isinstance(value, Fault) else "",
)
def test_a_push_that_stopped_goes_on(model: Path, hub: Hub, fault: Fault, said: str) -> None:
    hub.faults.append(fault)
    with pytest.raises(PushError) as stopped:
        push(model, "somebody/model")
    assert said in str(stopped.value)
    assert "Start it again" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    arrived = hub.uploaded
    hub.faults.clear()
    push(model, "somebody/model")
    whole = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    assert hub.uploaded - arrived == (0 if "commit" in fault.request else whole)
    pushed = hub.files("models/somebody/model")
    assert {name: content for name, content in pushed.items() if name != ".gitattributes"} == {
        file.name: file.read_bytes() for file in model.iterdir()
    }


def test_a_short_fault_is_passed_over(model: Path, hub: Hub) -> None:
    hub.faults += [Fault("PUT /objects", 500, times=1), Fault("PUT /objects", None, times=1)]
    assert push(model, "somebody/model").sent == len(files_to_push(model))
    assert hub.faults[0].times == hub.faults[1].times == 0


def test_who_may_not_is_told(model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PushError, match=r"the token may not write to else/model .*another owner"):
        push(model, "else/model")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nowhere")
    with pytest.raises(PushError, match="the Hub asks for a token"):
        push(model, "somebody/model")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(PushError, match=r"does not accept the token .*hf auth login"):
        push(model, "somebody/model")
    assert not hub.repositories


def test_a_server_without_xet(model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(PushError, match=NO_XET):
        push(model, "somebody/model")


PLANTED = {
    "notes.md": ("log in with hf_" + "aB3" * 11, "a token of the Hub"),
    "run.yaml": ("key: sk-" + "proj4" * 6, "an API key"),
    "keys.txt": ("-----BEGIN RSA PRIVATE " + "KEY-----", "a private key"),
    "aws.json": ('{"id": "AKIA' + "A1B2" * 4 + '"}', "an AWS key"),
    "git.cfg": ("ghp_" + "a1B2" * 9, "a token of GitHub"),
    ".env": ("nothing", "a file for secrets"),
    "model.pkl": ("x", "can run code"),
    "sub/optimizer.pt": ("x", "can run code"),
    "arguments.yaml": (f"data: {Path.home()}/texts\n", "your own folder"),
    "other.yaml": ("data: /home/alice/texts\n", "an absolute path"),
    "mac.json": ('{"data": "/Users/alice/texts"}', "an absolute path"),
    "windows.json": ('{"data": "C:\\\\Users\\\\alice"}', "an absolute path"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_must_not_go_is_found(name: str, copy: Path, hub: Hub) -> None:
    content, said = PLANTED[name]
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text(content)
    with pytest.raises(ValueError, match=said) as refused:
        push_to_hub.main([str(copy), "--repo_id", "somebody/model"])
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not hub.requests


def test_a_card_that_was_made_here_gets_the_name_on_the_hub(copy: Path, hub: Hub) -> None:
    (copy / "README.md").unlink()
    write_card(copy)
    assert "OWNER/NAME" in (copy / "README.md").read_text()
    push_to_hub.main([str(copy), "--repo_id", "somebody/named"])
    card = hub.files("models/somebody/named")["README.md"].decode()
    assert "somebody/named" in card
    assert "OWNER/NAME" not in card


@pytest.mark.parametrize("where", ["file", "folder", "nowhere"])
def test_a_link_is_found(where: str, copy: Path, tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (copy / "link").symlink_to(tmp_path / where)
    with pytest.raises(ValueError, match="link is a link"):
        push_to_hub.main([str(copy), "--repo_id", "somebody/model"])
    assert not hub.requests


def test_a_user_name_is_found(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "alicia")
    (copy / "README.md").write_text(f"{CARD}\nhttps://huggingface.co/alicia/model, by alicia\n")
    check_files(copy)  # the name on the Hub may be the same
    (copy / "log.txt").write_text("alicia@laptop")
    with pytest.raises(ValueError, match="user name in line 1: 'alicia@'"):
        check_files(copy)
    (copy / "log.txt").write_text("../../alicia/texts")
    with pytest.raises(ValueError, match="user name in line 1: 'alicia'"):
        check_files(copy)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I log in with hf_" + "aB3" * 11, "a token of the Hub in row 2"),
        ("-----BEGIN RSA PRIVATE " + "KEY-----\n" + "aB3+" * 16, "a private key in row 2"),
        (f"see {Path.home()}/texts", "your own folder or user name in row 2"),
        ("It begins with -----BEGIN RSA PRIVATE " + "KEY-----, then base64; see /home/alice.", None),
    ],
    ids=["token", "key", "home", "manual"],
)
def test_a_secret_in_the_rows_of_a_data_set(text: str, said: str | None, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": content}], "source": "0"} for content in ("Hello", text)]
    features = Features(
        {"messages": [{"role": Value("string"), "content": Value("string")}], "source": Value("string")}
    )
    built = Built(title="Chats", description="Made.", data=make_dataset({"train": rows}, features), build={})
    finish(BuilderArguments(output_dir=str(tmp_path / "data")), {"": built})
    with as_on_the_hub(tmp_path / "data", "me/data") as folder:
        if said is None:
            check_files(folder)
        else:
            with pytest.raises(ValueError, match=said):
                check_files(folder)


def test_a_model_that_answers_otherwise_elsewhere(copy: Path) -> None:
    """Its own code is another than the package's."""
    code = copy / "modeling_scratchgpt.py"
    text = code.read_text()
    assert "self.lm_head(" in text
    code.write_text(text.replace("self.lm_head(", "2 * self.lm_head("))
    with pytest.raises(ValueError, match="answers otherwise without this package"):
        check_before_push(copy)
    code.write_text("import scratchgpt\n" + text)
    with pytest.raises(ValueError, match=r"does not load without this package: .*scratchgpt"):
        check_before_push(copy)


def test_training_state_stays_here(copy: Path) -> None:
    (copy / "training_state").mkdir()
    (copy / "training_state" / "state.safetensors").write_bytes(b"x")
    names = {file.name for file in files_to_push(copy)}
    assert "model.safetensors" in names
    assert not names & {"state.safetensors", "manifest.json"}  # the seal would miss the state


def test_an_adapter_needs_its_base_on_the_hub(adapter: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"directory model, which nobody else has.*--base_repo_id"),
        as_on_the_hub(adapter, "somebody/adapter"),
    ):
        pass


def test_an_adapter_of_a_pinned_base_keeps_the_pin(adapter: Path, tmp_path: Path) -> None:
    """As training on a base from the Hub writes it: the name with the commit for us, the two apart for peft."""
    pinned = shutil.copytree(adapter, tmp_path / "pinned")
    base = json.loads((pinned / "base.json").read_text())
    (pinned / "base.json").write_text(json.dumps({**base, "base": f"somebody/model@{'0' * 40}"}))
    with as_on_the_hub(pinned, "somebody/adapter") as folder:
        config = json.loads((folder / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == ("somebody/model", "0" * 40)
        assert json.loads((folder / "base.json").read_text())["base"] == f"somebody/model@{'0' * 40}"


def test_what_is_not_the_hub_is_told(model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "create", lambda handler: handler.respond(200, b"<html>Log in to the network</html>"))
    with pytest.raises(PushError, match="what answered is not the Hub: look at HF_ENDPOINT"):
        push(model, "somebody/model")


def test_a_refusal_names_what_was_given(adapter: Path, tmp_path: Path) -> None:
    """Not the temporary copy that would go."""
    given = shutil.copytree(adapter, tmp_path / "given")
    (given / "notes.txt").write_text("/home/alice/texts")
    with (
        as_on_the_hub(given, "somebody/adapter", "somebody/model") as folder,
        pytest.raises(ValueError, match="an absolute path") as refused,
    ):
        check_before_push(given, folder)
    assert f"notes.txt in {given} holds" in str(refused.value)
    assert str(folder) not in str(refused.value)


def test_dry_run_sends_nothing(model: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    push_to_hub.main([str(model), "--repo_id", "somebody/model", "--dry_run"])
    printed = capsys.readouterr().out
    assert all(file.name in printed for file in model.iterdir())
    assert f"{len(list(model.iterdir()))} files" in printed
    assert not hub.requests


def test_training_goes_on_whatever_the_hub_does(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit is refused for a quota; the last checkpoint and final/ arrive, and the losses are the same."""
    monkeypatch.setattr(background_push, "check_answers", lambda directory: None)  # seconds; tested above
    workplace = make_workplace(tmp_path)
    plain = run_here(workplace, "plain")
    hub.faults += [Fault("POST .*/commit/", 403, "You have exceeded your storage quota", times=1)]
    capsys.readouterr()
    output = run_here(workplace, "run", push_to_hub=True, hub_model_id="somebody/model")
    printed = capsys.readouterr().out
    assert losses(output) == losses(plain)
    assert printed.count("is not on the Hub, and the run goes on: ") == 1
    assert "You have exceeded your storage quota" in printed
    pushed = hub.files("models/somebody/model")
    assert pushed["model.safetensors"] == (output / "final" / "model.safetensors").read_bytes()
    assert not any("training_state" in name or "optimizer" in name for name in pushed)
    repository = hub.repositories["models/somebody/model"]
    assert repository.messages[-1] == "Training: final"
    assert f"final, the last as revision {repository.branches['main']}" in printed
