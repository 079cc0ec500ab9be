"""The classifier recipe as a user runs it: from a file to a pipeline, every way of tuning, and bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from recipes import classify, finetune_classifier
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).resolve().parents[2]
SPAM, HAM = ["win a prize now", "call to claim cash", "free entry today"], ["see you soon", "are you home", "love you"]


def texts(count: int) -> list[tuple[str, str]]:
    pairs = [("spam", SPAM[i % 3]) if i % 2 else ("ham", HAM[i % 3]) for i in range(count)]
    return [(label, f"{text} {chr(97 + i % 26)}{chr(97 + i // 26)}") for i, (label, text) in enumerate(pairs)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    rows = [f"{label},{text}" for label, text in texts(160)]
    (folder / "data.csv").write_text("\n".join(["kind,message", *rows]))
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": text}) for _, text in texts(160)))
    tokenizer = to_transformers(BPETokenizer.train([text for _, text in texts(160)] * 3, vocab_size=300))
    torch.manual_seed(0)
    config = ScratchGPTConfig.from_preset(
        "modern",
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    save_model(ScratchGPTForCausalLM(config), tokenizer, folder / "base")
    return folder


def options(workplace: Path, output: str, **changed: object) -> list[str]:
    defaults = {
        "data": workplace / "data.csv",
        "text_column": "message",
        "label_column": "kind",
        "validation_fraction": 0.15,
        "test_fraction": 0.15,
        "model_name_or_path": workplace / "base",
        "output_dir": workplace / output,
        "cache_dir": workplace / "cache",
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.01,
        "eval_steps": 30,
        "mixed_precision": "no",
    }
    return [f"--{name}={value}" for name, value in {**defaults, **changed}.items()]


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Path:
    finetune_classifier.main(options(workplace, "full", class_weights="balanced"))
    return workplace / "full"


def test_a_file_becomes_a_classifier_that_pipeline_loads(finished: Path) -> None:
    found = results(finished)
    assert found["test"]["num_texts"] == 24
    assert found["test"]["accuracy"] > 0.9
    assert found["baselines"]["majority"]["accuracy"] == 0.5
    assert found["baselines"]["TF-IDF logistic regression (word)"]["accuracy"] > 0.9
    assert found["class_weights"] == "balanced"
    assert found["labels"]["train"] == {"ham": 56, "spam": 56}
    answers = pipeline("text-classification", str(finished / "final"), device="cpu")([SPAM[0] + " aa", HAM[0] + " aa"])
    assert [answer["label"] for answer in answers] == ["spam", "ham"]
    card = (finished / "final" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert f"{found['test']['accuracy']:.2%}" in card
    for plot in ("confusion.png", "roc.png", "calibration.png", "loss.png"):
        assert (finished / plot).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changed", "trained"),
    [
        ({"tuning": "frozen"}, {"score.weight"}),
        ({"tuning": "last_layers", "last_layers": 1}, {"score.weight", "model.norm.weight", "model.layers.1."}),
    ],
)
def test_what_is_frozen_stays_bit_for_bit(workplace: Path, changed: dict, trained: set[str]) -> None:
    name = changed["tuning"]
    finetune_classifier.main(options(workplace, name, num_train_epochs=1, baselines="none", **changed))
    base = ScratchGPTForCausalLM.from_pretrained(workplace / "base").state_dict()
    tuned = AutoModelForSequenceClassification.from_pretrained(workplace / name / "final").state_dict()
    same = {key for key, tensor in tuned.items() if key in base and torch.equal(base[key], tensor)}
    assert all(any(key.startswith(each) for each in trained) for key in tuned.keys() - same)
    assert all(any(key.startswith(each) for key in tuned.keys() - same) for each in trained)
    assert list(results(workplace / name)["baselines"]) == ["majority"]


def test_lora_leaves_an_adapter_and_a_merged_model(workplace: Path, capsys) -> None:
    base = (workplace / "base" / "model.safetensors").read_bytes()
    finetune_classifier.main(options(workplace, "lora", tuning="lora"))
    found = results(workplace / "lora")
    share = found["num_trained_parameters"] / found["num_parameters"]
    assert f"parameters are trained ({share:.2%})" in capsys.readouterr().out
    assert (workplace / "lora" / "final" / "adapter_model.safetensors").stat().st_size > 1000
    assert (workplace / "base" / "model.safetensors").read_bytes() == base
    assert found["test"]["accuracy"] > 0.7
    assert pipeline("text-classification", str(workplace / "lora" / "merged"), device="cpu")("win")[0]["label"]


def test_random_weights_and_reading_on(workplace: Path) -> None:
    more = {"lm_steps": 4, "lm_data": workplace / "lm", "num_train_epochs": 1, "from_scratch": True}
    from datasets import Dataset, DatasetDict

    text = Dataset.from_json(str(workplace / "text.jsonl"))
    DatasetDict(train=text, validation=text.select(range(20))).save_to_disk(workplace / "lm")
    finetune_classifier.main(options(workplace, "on", **more))
    read = ScratchGPTForCausalLM.from_pretrained(workplace / "on" / "language_model" / "final").state_dict()
    base = ScratchGPTForCausalLM.from_pretrained(workplace / "base").state_dict()
    assert not torch.equal(read["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    assert results(workplace / "on" / "language_model")["steps"] == 4
    assert results(workplace / "on")["base"].endswith("language_model/final")


def test_a_language_model_stage_is_used_again_only_for_what_it_was_made_from(workplace: Path, capsys) -> None:
    """Before, whatever stood in output_dir/language_model was taken, whichever base, text and arguments made it."""
    from datasets import Dataset, DatasetDict

    for name, rows in (("first", texts(60)), ("second", texts(50))):
        text = Dataset.from_dict({"text": [text for _, text in rows]})
        DatasetDict(train=text, validation=text.select(range(20))).save_to_disk(workplace / name)
    common = {"lm_steps": 2, "max_steps": 1, "baselines": "none"}

    def start(**changed: object) -> str:
        folder = workplace / "stages"
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        finetune_classifier.main(options(workplace, "stages", **{"lm_data": workplace / "first", **common, **changed}))
        return capsys.readouterr().out

    assert "made anew" not in start()
    written = (workplace / "stages" / "language_model" / "results.json").stat().st_mtime_ns
    assert "made anew" not in start(learning_rate=0.02, save_steps=7)  # of the classifier alone, or of no effect
    assert (workplace / "stages" / "language_model" / "results.json").stat().st_mtime_ns == written
    assert "language_model was made with other text: it is made anew" in start(lm_data=workplace / "second")
    assert "was made with other learning_rate, text: it is made anew" in start(lm_learning_rate=0.01)
    assert "was made with other hidden_dropout, learning_rate: it" in start(hidden_dropout=0.2)


def test_max_steps_win_over_epochs_and_both_are_told(workplace: Path, capsys) -> None:
    """Before, --max_steps 3 beside --num_train_epochs 1 ran an epoch."""
    finetune_classifier.main(options(workplace, "steps", max_steps=3, num_train_epochs=1, baselines="none"))
    assert results(workplace / "steps")["steps"] == 3
    assert "3 steps: 0.214 passes over the training texts" in capsys.readouterr().out
    again = [str(workplace / "steps" / "arguments.yaml"), f"--output_dir={workplace / 'steps_again'}"]
    finetune_classifier.main(again)
    first, second = (results(workplace / name)["test"] for name in ("steps", "steps_again"))
    assert first == second


def test_two_processes_do_what_one_does(workplace: Path) -> None:
    """The same rows, losses and evaluation for an equal global batch."""
    settings = {"num_train_epochs": 1, "baselines": "none", "hidden_dropout": 0, "attention_dropout": 0}
    settings["logging_steps"] = 1
    finetune_classifier.main(options(workplace, "one", **settings))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    recipe = [str(ROOT / "recipes" / "finetune_classifier.py")]
    run = subprocess.run(
        [*launcher, *recipe, *options(workplace, "two", per_device_train_batch_size=4, **settings)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    one, two = results(workplace / "one"), results(workplace / "two")
    assert two["identity"]["world_size"] == 2
    assert two["final"]["loss"] == pytest.approx(one["final"]["loss"], rel=1e-3)
    assert two["test"]["confusion"] == one["test"]["confusion"]
    losses = [
        [json.loads(line)["loss"] for line in (workplace / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_file_is_classified_in_batches(finished: Path, workplace: Path, capsys) -> None:
    rows = [("spam", SPAM[0] + " qq"), ("ham", HAM[1] + " qq" * 40), ("spam", "free")]
    file = workplace / "new.tsv"
    file.write_text("kind\tmessage\n" + "".join(f"{label}\t{text}\n" for label, text in rows))
    common = ["--model", str(finished / "final"), "--data", str(file), "--text_column=message", "--batch_size=2"]
    with pytest.warns(UserWarning, match="1 of 3 texts are longer than 32 tokens and are cut"):
        classify.main([*common, "--output", str(workplace / "out.jsonl"), "--label_column=kind"])
    assert "(3 texts)" in capsys.readouterr().out
    answers = [json.loads(line) for line in (workplace / "out.jsonl").read_text().splitlines()]
    piped = pipeline("text-classification", str(finished / "final"), device="cpu")(
        [text for _, text in rows], truncation=True
    )
    assert [answer["label"] for answer in answers] == [answer["label"] for answer in piped]
    assert [answer["probability"] for answer in answers] == pytest.approx([answer["score"] for answer in piped], 1e-4)
    assert answers[0]["p(ham)"] + answers[0]["p(spam)"] == pytest.approx(1)
    with pytest.raises(ValueError, match="exists: give another file, or --overwrite"):
        classify.main([*common, "--output", str(workplace / "out.jsonl")])
    (workplace / "new.txt").write_text("win a prize\nsee you\n")
    classify.main(["--model", str(finished / "final"), "--data", str(workplace / "new.txt"),
                   "--output", str(workplace / "out.csv")])  # fmt: skip
    assert (workplace / "out.csv").read_text().splitlines()[0] == "label,probability,p(ham),p(spam)"


@pytest.mark.parametrize(
    ("changed", "content", "message"),
    [
        ({"text_column": "body"}, None, "no column 'body'"),
        ({"label_column": "class"}, None, "no column 'class'"),
        ({}, "kind,message\nspam,x\nspam,y\nspam,z\n", "one label only"),
        ({}, "kind,message\n", "no rows"),
        (
            {},
            "kind,message\n" + "".join(f"{('ham', 'spam')[i % 2]},call {i}\n" for i in range(20)),
            "the split 'validation' would be empty: the 20 texts have the same words as 1 of them",
        ),
        ({}, "kind,message\nham,x\nspam,X\n", "every text labelled ..ham', 'spam'. stands under another label too"),
        ({"eval_data": "EVAL"}, None, "unknown labels .'eggs'."),
        ({}, b"kind,message\nham,\xff\n", "not text in UTF-8"),
        ({"tuning": "lora", "from_scratch": True}, None, "tuning=lora needs a base with weights"),
        ({"lm_steps": 3}, None, "lm_steps needs --lm_data"),
        ({"r_drop": -1}, None, "r_drop=-1"),
        ({"max_length": 33}, None, "max_length=33 is beyond the model's context of 32 tokens"),
        ({"num_train_epochs": "inf"}, None, "num_train_epochs=inf: it must be finite, above 0"),
        ({"model_name_or_path": "no/where"}, None, "no/where is not here"),
        ({"r_drop": 1, "hidden_dropout": 0, "attention_dropout": 0}, None, "give hidden_dropout or attention_dropout"),
        ({"model_name_or_path": ""}, None, "--model_name_or_path is missing"),
    ],
)
def test_bad_input_is_refused_before_training(
    workplace: Path, tmp_path: Path, changed: dict, content: str | bytes | None, message: str
) -> None:
    (tmp_path / "eval.csv").write_text("kind,message\nham,x\neggs,y\n")
    if content is not None:
        (tmp_path / "data.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        changed["data"] = tmp_path / "data.csv"
    changed = {name: tmp_path / "eval.csv" if value == "EVAL" else value for name, value in changed.items()}
    with pytest.raises(ValueError, match=message):
        finetune_classifier.main(
            options(
                tmp_path,
                "refused",
                **{"model_name_or_path": workplace / "base", "data": workplace / "data.csv", **changed},
            )
        )
    assert not (tmp_path / "refused").exists()


def test_test_texts_that_were_trained_on_are_told(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The published fault: 440 of 500 test rows stood in the training set, and the table said nothing."""
    lines = (workplace / "data.csv").read_text().splitlines()
    (workplace / "train.csv").write_text("\n".join(lines[:60]) + "\n")
    (workplace / "test.csv").write_text("\n".join([lines[0], *lines[41:81]]) + "\n")
    finetune_classifier.main(
        options(
            workplace, "leaking", data=workplace / "train.csv", eval_data=workplace / "train.csv",
            test_data=workplace / "test.csv", max_steps=2, eval_steps=2, save_steps=2,
        )
    )  # fmt: skip
    found = json.loads((workplace / "leaking" / "results.json").read_text())["overlap"]
    assert found["checked"]
    assert 0 < found["seen"] < found["count"]
    assert f"test: {found['seen']} of {found['count']} texts" in capsys.readouterr().out
