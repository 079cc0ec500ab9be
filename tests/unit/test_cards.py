"""Cards: what they say is what the files say, nothing private is in them, and nobody's own card is lost."""

import getpass
import json
import re
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, constants, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results

from recipes import train_tokenizer
from scratchgpt.data.builder import Built, card, make_dataset
from scratchgpt.hub.card_facts import private_names, shown, without_private_paths
from scratchgpt.hub.cards import FORM, PLACEHOLDER, card_text, check_card, is_own, write_card
from scratchgpt.hub.fingerprints import hash_weight_files
from scratchgpt.hub.names import is_hub_name
from scratchgpt.hub.seals import verify_seal
from scratchgpt_cli import commands
from tests.runs import make_workplace, run_here


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of pretraining, in a folder whose path is private."""
    folder = tmp_path_factory.mktemp("private") / "somebody"
    folder.mkdir()
    workplace = make_workplace(folder)
    return run_here(workplace, "base", sample_prompts="To be", sample_tokens=8)


@pytest.fixture
def base(run: Path, tmp_path: Path) -> Path:
    """A copy of its model, beside a copy of its files."""
    for file in run.iterdir():
        if file.is_file():
            shutil.copy2(file, tmp_path)
    shutil.copytree(run / "final", tmp_path / "final")
    return tmp_path / "final"


def metadata(directory: Path) -> dict:
    return ModelCard.load(directory / "README.md").data.to_dict()


def test_a_run_ends_with_a_card_whose_numbers_are_those_of_its_results(run: Path) -> None:
    final, results = run / "final", json.loads((run / "results.json").read_text())
    text = (final / "README.md").read_text()
    assert check_card(final) == []
    assert f"{results['final']['bits_per_byte']:.4f} | {results['final']['num_bytes']:,} bytes" in text
    assert f"{results['num_parameters']:,} parameters" in text
    assert f"`{results['identity']['data']}`" in text
    assert f"torch {results['identity']['versions']['torch']}" in text
    assert "scratchgpt pretrain arguments.yaml" in text
    assert "\nTo be" in text  # a sample
    for picture in ("loss.png", "throughput.png"):
        assert f"({picture})" in text
        assert (final / picture).read_bytes() == (run / picture).read_bytes()
    verify_seal(final)
    data = metadata(final)
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-generation")
    assert not {"license", "base_model", "datasets", "language"} & data.keys()  # nobody knows them
    (_, found) = model_index_to_eval_results(data["model-index"])
    values = {each.metric_type: each.metric_value for each in found}
    assert values == {name: results["final"][name] for name in ("bits_per_byte", "perplexity", "loss")}


def test_nothing_private_is_in_it(run: Path) -> None:
    text = (run / "final" / "README.md").read_text()
    for private in (str(run.parent), "/tmp", str(Path.home()), socket.gethostname(), f"/{getpass.getuser()}/"):
        assert private not in text
    arguments = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert arguments["data"] == "text.jsonl"
    assert arguments["max_steps"] == 12
    assert not list(private_names(text))
    assert list(private_names(f"{Path.home()}/data")) == [str(Path.home())]
    assert without_private_paths(f"see {Path.home()}/data and {Path.home()}2") == f"see ~/data and {Path.home()}2"


def test_warnings_come_from_numbers(base: Path) -> None:
    text = card_text(base)
    assert "**Small model**" in text
    assert "**Measured on little text**" in text
    assert "**Overfitted**" not in text
    results = json.loads((base.parent / "results.json").read_text())
    results["best"]["loss"], results["skipped_steps"] = results["final"]["loss"] / 2, 3
    lines = [json.loads(line) for line in (base.parent / "metrics.jsonl").read_text().splitlines()]
    lines = [{**line, "loss": results["final"]["loss"] - 0.75} for line in lines]
    (base.parent / "results.json").write_text(json.dumps(results))
    (base.parent / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = card_text(base)
    assert f"the validation loss of {results['final']['loss']:.3f} is 0.750 nats above" in text
    assert "**Trained too long**" in text
    assert "3 of 12 steps were skipped" in text


def test_what_it_was_measured_on_is_said(base: Path) -> None:
    """The split by its name, that it is the training text where it is, and the precision where it is float32."""
    text = card_text(base)  # of a run whose eval_data is its data, eval_split train
    assert "| on the split 'train' |" in text
    assert "validation split" not in text
    assert "**Measured on its training text**" in text
    assert "| precision | float32 |" in text
    file = base.parent / "arguments.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "eval_split": "test"}))
    assert "**Measured on its training text**" not in card_text(base)


def test_results_of_an_evaluation_are_taken_up_only_for_these_weights(base: Path) -> None:
    found = {
        "value": 0.4375, "count": 1234, "interval": [0.41, 0.46], "signature": "hellaswag acc|0-shot", "chance": 0.25,
        "verdict": "above chance", "dataset": "Rowan/hellaswag", "task": "default",
    }  # fmt: skip
    overlap = {"hellaswag": {"checked": True, "complete": True, "count": 1234, "seen": 7}}
    values = {
        "model": {"files": hash_weight_files(base)},
        "identities": {},
        "hellaswag": {"accuracy": found},
        "overlap": overlap,
    }
    (base.parent / "scores").mkdir()
    (base.parent / "scores" / "results.json").write_text(json.dumps(values))
    write_card(base)
    text = (base / "README.md").read_text()
    assert "| hellaswag: accuracy | 0.4375 | 0.4100 to 0.4600 | 1,234 | 0.2500 (above chance) |" in text
    assert "`hellaswag acc\\|0-shot`" in text
    assert "**Contaminated**: 7 of the 1,234 test texts of hellaswag" in text
    _, results = model_index_to_eval_results(metadata(base)["model-index"])
    assert [each.metric_value for each in results if each.dataset_type == "Rowan/hellaswag"] == [0.4375]
    (entry,) = parse_eval_result_entries(yaml.safe_load((base / ".eval_results" / "hellaswag.yaml").read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("Rowan/hellaswag", "default", 0.4375)
    verify_seal(base)
    for model in ({"files": "another"}, {}):
        (base.parent / "scores" / "results.json").write_text(json.dumps({**values, "model": model}))
        assert "hellaswag" not in card_text(base)


def test_a_users_card_is_kept(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = base / "README.md"
    assert is_own(file.read_text())
    edited = file.read_text().replace("# ", "# My ", 1)
    file.write_text(edited)
    assert not is_own(edited)
    assert write_card(base) == file
    assert file.read_text() == edited
    with pytest.raises(SystemExit, match="2"):
        commands.main(["card", str(base)])
    assert "was written or edited by hand" in capsys.readouterr().err
    file.unlink()
    commands.main(["card", str(base), "--repo_id", "me/mine"])
    assert is_own(file.read_text())
    assert '"me/mine"' in file.read_text()
    assert PLACEHOLDER not in file.read_text()


def test_training_again_keeps_a_users_card(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.parent, tmp_path / "workplace")
    (tmp_path / "workplace" / "base" / "final" / "README.md").write_text("# Mine\n")
    again = run_here(tmp_path / "workplace", "base", max_steps=14, resume_from_checkpoint="true")
    assert (again / "final" / "README.md").read_text() == "# Mine\n"
    assert "library_name" in " ".join(check_card(again / "final"))


def test_a_card_outlives_its_run(base: Path) -> None:
    before = (base / "README.md").read_text()
    for file in base.parent.iterdir():
        if file.is_file():
            file.unlink()
    write_card(base)
    assert (base / "README.md").read_text() == before
    assert "**No record of its training**" in card_text(base)


def test_what_is_wrong_is_listed(base: Path) -> None:
    file = base / "README.md"
    (base / "loss.png").unlink()
    assert check_card(base) == ["README.md shows loss.png, which is not there"]
    file.write_text(f"---\nlibrary_name: transformers\n---\n\n{FORM} see {Path.home()}/me")
    wrong = "; ".join(check_card(base))
    assert "no pipeline_tag" in wrong
    assert "peft's form" in wrong
    assert "whose machine" in wrong
    file.write_text("---\nlibrary_name: [\n---\n")
    assert "cannot be read" in check_card(base)[0]
    file.unlink()
    assert "is missing" in check_card(base)[0]
    with pytest.raises(ValueError, match="no model, adapter, tokenizer or built data set"):
        write_card(base.parent / "nothing")


def test_a_tokenizers_card(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat\n" * 40)
    out = tmp_path / "words"
    train_tokenizer.main(["--data", str(tmp_path / "corpus.txt"), "--output_dir", str(out), "--vocab_size", "280"])
    text = (out / "README.md").read_text()
    assert "# words\n" in text
    assert "scratchgpt train-tokenizer arguments.yaml" in text
    assert "**Measured on its training text**" in text
    assert str(tmp_path) not in text
    assert check_card(out) == []
    assert "pipeline_tag" not in metadata(out)


def test_a_data_set_keeps_the_card_of_its_builder_or_gets_one(tmp_path: Path) -> None:
    data = make_dataset({"train": [{"text": "a b", "source": "1"}]})
    (tmp_path / "README.md").write_text(card(Built(title="Mine", description="All.", data=data, build={})))
    splits = {"train": {"rows": 1, "documents": 1, "characters": 3}}
    (tmp_path / "build.json").write_text(json.dumps({"builder": "text_files", "splits": splits, "sha256": "ab12"}))
    before = (tmp_path / "README.md").read_text()
    assert write_card(tmp_path).read_text() == before
    assert check_card(tmp_path) == []
    (tmp_path / "README.md").unlink()
    text = write_card(tmp_path).read_text()
    assert "| train | 1 | 1 | 3 |" in text
    assert "ab12" in text
    assert check_card(tmp_path) == []


def test_the_hubs_own_check_is_sent_every_kind(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`validate` of huggingface_hub against a server that reads the metadata as the Hub does: as YAML, with rules."""
    problems: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            assert self.path == "/api/validate-yaml"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = yaml.safe_load(body["content"].split("---")[1])
            for entry in found.get("model-index", []):
                for result in entry["results"]:
                    if not {"type", "name"} <= result["dataset"].keys() or not result["task"]["type"]:
                        problems.append(f"model-index: {result}")
            if body["repoType"] != "model" or not isinstance(found.get("tags"), list):
                problems.append("tags")
            self.send_response(400 if problems else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        ModelCard.load(run / "final" / "README.md").validate()
    finally:
        server.shutdown()
        server.server_close()
    assert problems == []


def test_names_on_the_hub_and_paths_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "runs" / "base").mkdir(parents=True)
    assert is_hub_name("openai-community/gpt2", tmp_path)
    for path in ("runs/base", "data/mine.csv", "../base", "/abs/base", "gpt2", "a/b/c"):
        assert not is_hub_name(path, tmp_path / "runs" / "x" / "final")
    for path, name in {"/home/me/x/data": "data", "~/a/final": "a/final", "runs/a": "runs/a", "../b": "b"}.items():
        assert shown(path) == name


@pytest.mark.parametrize("name", ["model-f16.gguf", "onnx/model.onnx", "model/page.json"])
def test_an_export_keeps_the_card_that_it_came_with(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for file in (name, "config.json"):
        (tmp_path / file).write_text("{}")
    with pytest.raises(ValueError, match="is for other engines: its card was made with it"):
        write_card(tmp_path)
    assert not (tmp_path / "README.md").exists()
