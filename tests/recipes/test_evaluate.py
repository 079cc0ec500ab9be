"""recipes/evaluate.py: finished answers and a model's, texts, benchmarks; of any causal language model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from recipes import evaluate
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.adapters import AdapterArguments, add_adapter, load_base
from scratchgpt.evaluation import log_likelihoods
from scratchgpt.evaluation.log_likelihoods import LogLikelihoods
from scratchgpt.hub.model_directory import save_model
from scratchgpt.hub.training_texts import TrainingTexts
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from tests.runs import make_workplace, run_here

ROWS = [
    {"Instruction": "What is a cat?", "Input": "", "Response": "An animal.", "model_response": "A small animal."},
    {"Instruction": "What is a bus?", "Input": "", "Response": "A vehicle.", "model_response": "A vehicle."},
    {"Instruction": "What is a key?", "Input": "", "Response": "It opens doors.", "model_response": ""},
]
LIBRARIES = {"bleu": "sacrebleu", "rougeL": "rouge_score", "meteor": "nltk"}


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_finished_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every number has its count, interval and signature; the second run has nothing to do; new answers are scored."""
    (tmp_path / "answers.json").write_text(json.dumps(ROWS))
    argv = [f"--answers={tmp_path / 'answers.json'}", f"--output_dir={tmp_path / 'scores'}"]
    evaluate.main(argv)
    found = results(tmp_path / "scores")["answers"]
    assert found["exact_match"]["value"] == pytest.approx(1 / 3)
    for values in found.values():
        assert {"value", "count", "interval", "signature"} <= set(values)
    for name, library in LIBRARIES.items():
        assert library in found[name]["signature"]
    assert found["token_f1"]["interval"][0] <= found["token_f1"]["value"] <= found["token_f1"]["interval"][1]
    assert "token_f1" in capsys.readouterr().out
    evaluate.main(argv)
    assert "has the results already" in capsys.readouterr().out
    (tmp_path / "answers.json").write_text(json.dumps(ROWS[:2]))
    evaluate.main(argv)
    assert "already" not in capsys.readouterr().out
    assert results(tmp_path / "scores")["answers"]["exact_match"]["value"] == 0.5


def test_a_models_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are kept as a file that is scored alike."""
    tokenizer = to_transformers(BPETokenizer.train(["What is a cat? An animal."] * 9, vocab_size=300))
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(ScratchGPTForCausalLM(config), tokenizer, tmp_path / "model")
    rows = [{"instruction": row["Instruction"], "output": row["Response"]} for row in ROWS]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate.main([
        f"--model={tmp_path / 'model'}", f"--data={tmp_path / 'chats.jsonl'}", "--split=train", "--dtype=float32",
        f"--output_dir={tmp_path / 'scores'}", "--max_new_tokens=8",
    ])  # fmt: skip
    found = results(tmp_path / "scores")
    assert found["model"]["dtype"] == "float32"
    assert len(found["model"]["weights"]) >= 16
    assert found["answers"]["exact_stop_rate"]["count"] == 3
    lines = (tmp_path / "scores" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["instruction"] for line in lines] == [row["Instruction"] for row in ROWS]
    evaluate.main([f"--answers={tmp_path / 'scores' / 'answers.jsonl'}", f"--output_dir={tmp_path / 'again'}"])
    again = results(tmp_path / "again")["answers"]
    assert {name: values["value"] for name, values in again.items()} == {
        name: values["value"] for name, values in found["answers"].items()
    }
    assert "bleu" in capsys.readouterr().out


TEXTS = ["What is a cat? An animal.", "What is a bus? A vehicle.", "A key opens doors, and a cat does not."]
PAIRS = [
    {"sentence_good": f"{i} {good}", "sentence_bad": f"{i} {bad}", "phenomenon": "verbs", "paradigm": good}
    for i in range(30)
    for good, bad in (("is", "are"), ("opens", "open"))
]
QUESTIONS = [{"query": f"A cat {i} is", "choices": ["an animal", "a bus", "a key"], "gold": i % 3} for i in range(12)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return to_transformers(BPETokenizer.train(TEXTS * 9, vocab_size=300))


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A text, and benchmarks."""
    write(tmp_path / "text.jsonl", [{"text": text} for text in TEXTS])
    write(tmp_path / "eval" / "blimp.jsonl", PAIRS)
    write(tmp_path / "eval" / "openbook_qa.jsonl", QUESTIONS)
    return tmp_path


def save(kind: str, tokenizer: Any, folder: Path) -> Path:
    """A directory as transformers writes it, or ours."""
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 64, **ends,
    }  # fmt: skip
    if kind == "ours":
        config = ScratchGPTConfig.from_preset("modern", pad_token_id=tokenizer.pad_token_id, **shape)
        save_model(ScratchGPTForCausalLM(config), tokenizer, folder)
        return folder
    grouped = {"num_key_value_heads": 1, "intermediate_size": 64, "head_dim": 32}
    model: Any = {
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), n_embd=64, n_layer=1, n_head=2, n_positions=64, **ends)
        ),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**shape, **grouped)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**shape, **grouped)),
    }[kind]()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def options(data: Path, *models: Path, **changed: object) -> list[str]:
    given = {"text": data / "text.jsonl", "benchmarks_dir": data / "eval", "output_dir": data / "out", **changed}
    return [f"--model={model}" for model in models] + [f"--{name}={value}" for name, value in given.items()]


@pytest.mark.parametrize("kind", ["ours", "gpt2", "qwen3", "llama"])
def test_any_causal_language_model(kind: str, tokenizer: Any, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text and benchmarks of a plain directory; every score has its count, interval, signature, chance and verdict."""
    evaluate.main(options(data, save(kind, tokenizer, data / "model")))
    found = results(data / "out")
    assert found["model"]["dtype"] == "float32"
    assert set(found) == {"model", "identities", "overlap", "text", "blimp", "openbookqa"}
    for suite in ("text", "blimp", "openbookqa"):
        for values in found[suite].values():
            assert {"value", "count", "interval", "signature"} <= set(values)
    assert found["blimp"]["accuracy"]["count"] == 60
    more = {"standard_error", "chance", "centred", "smallest_difference", "verdict"}
    assert more <= set(found["blimp"]["accuracy/verbs/is"]) & set(found["openbookqa"]["accuracy_norm"])
    items = json.loads((data / "out" / "items" / "blimp.json").read_text())
    assert len(items["accuracy"]) == 60
    assert "bits_per_byte" in capsys.readouterr().out
    assert not (data / "out" / "journal").exists()
    model = AutoModelForCausalLM.from_pretrained(data / "model").eval()
    total = 0.0
    for text in TEXTS:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.no_grad():
            total += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
    bits = total / math.log(2) / len("".join(TEXTS).encode())
    assert found["text"]["bits_per_byte"]["value"] == pytest.approx(bits, rel=1e-5)


def test_an_adapter_a_rounded_model_and_a_5_gram(tokenizer: Any, data: Path) -> None:
    """Several models have a directory each; the adapter differs from its base."""
    base = save("ours", tokenizer, data / "base" / "final")
    model = add_adapter(load_base(base), AdapterArguments())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_model(model, tokenizer, data / "adapter" / "final")
    evaluate.main(options(data, base, data / "adapter" / "final", train_text=data / "text.jsonl"))
    folders = [data / "out" / name for name in ("base-final", "adapter-final", "5-gram")]
    of_base, of_adapter, of_ngram = (results(folder)["text"]["bits_per_byte"]["value"] for folder in folders)
    assert abs(of_base - of_adapter) > 1e-3
    assert of_ngram < min(of_base, of_adapter)  # it has read this very text
    assert results(folders[0])["text"]["bits_per_byte_5-gram"]["value"] == pytest.approx(of_ngram, rel=1e-9)
    assert results(folders[2])["blimp"]["accuracy"]["count"] == 60
    for bits in (8, 4):
        evaluate.main(options(data, base, weight_bits=bits, output_dir=data / f"bits{bits}"))
        rounded = results(data / f"bits{bits}")
        assert (rounded["model"]["weight_bits"], rounded["model"]["dtype"]) == (bits, "bfloat16")
        assert rounded["text"]["bits_per_byte"]["value"] == pytest.approx(of_base, rel=0.05)


def test_a_killed_run_goes_on(
    tokenizer: Any, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suites that are done are not run again, and of one that was under way what is known is not computed again."""
    model = save("ours", tokenizer, data / "model")
    evaluate.main(options(data, model, output_dir=data / "expected"))
    expected = results(data / "expected")
    monkeypatch.setattr(log_likelihoods, "WRITTEN_AT_ONCE", 100)
    asked: list[int] = []
    score = LogLikelihoods.score

    def counted(self: LogLikelihoods, sequences: Any) -> Any:
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append(len(sequences))
        return score(self, sequences)

    monkeypatch.setattr(LogLikelihoods, "score", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(options(data, model))
    assert set(results(data / "out")) == {"model", "identities", "overlap", "text"}
    known = len((data / "out" / "journal" / "log_likelihoods.jsonl").read_text().splitlines())
    assert known == sum(asked)
    before, again = sum(asked), []
    monkeypatch.setattr(LogLikelihoods, "score", lambda self, s: again.append(len(s)) or score(self, s))
    capsys.readouterr()
    evaluate.main(options(data, model))
    assert "has the results already: text" in capsys.readouterr().out
    assert before + sum(again) == 3 + 120 + 36  # texts, sentences, answers: each once
    found = results(data / "out")
    assert found.keys() == expected.keys()
    for suite in ("text", "blimp", "openbookqa"):
        for name, values in expected[suite].items():
            assert found[suite][name]["value"] == pytest.approx(values["value"], rel=1e-5)
    again.clear()
    evaluate.main(options(data, model))
    assert not again


def test_a_run_killed_before_its_first_result_goes_on(tokenizer: Any, data: Path) -> None:
    """It has left a journal and no results.json."""
    (data / "out" / "journal").mkdir(parents=True)
    (data / "out" / "journal" / "log_likelihoods.jsonl").write_text('{"key": "cut o')
    evaluate.main([*options(data, save("ours", tokenizer, data / "model")), "--suite", "text"])
    assert "text" in results(data / "out")


def test_lists_given_twice(tokenizer: Any, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--suite a --suite b is --suite a b; what does not fit a model is left out, unless it is asked for by name."""
    model = save("ours", tokenizer, data / "model")
    evaluate.main([*options(data, model), "--suite", "blimp", "--suite", "text"])
    assert set(results(data / "out")) == {"model", "identities", "overlap", "blimp", "text"}
    write(data / "eval" / "copa.jsonl", [{"query": "So", "choices": ["a", "quizzical " * 20], "gold": 0}])
    capsys.readouterr()
    evaluate.main(options(data, model))
    assert "model: left out: copa: an answer of question 1 is longer" in capsys.readouterr().out
    with pytest.raises(ValueError, match="copa: an answer of question 1 is longer"):
        evaluate.main([*options(data, model), "--suite", "copa"])


def test_a_text_that_was_trained_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written otherwise, too; on demand what was seen and what was not are scored apart; a tuned model remembers."""
    workplace = make_workplace(tmp_path, documents=60)
    run_here(workplace, "run", max_steps=6)
    model = tmp_path / "run" / "final"
    trained = [json.loads(line)["text"] for line in (workplace / "text.jsonl").read_text().splitlines()]
    new = [
        f"Nobody has read number {number} of these {number * 7} words before today, {number}." for number in range(8)
    ]
    planted = ["\n".join(text.upper().split()) for text in trained[:4]]
    (tmp_path / "held_out.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*new, *planted]))
    arguments = [
        f"--model={model}", "--suite=text", f"--text={tmp_path / 'held_out.jsonl'}",
        f"--output_dir={tmp_path / 'out'}",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"^text, for .* contaminated: 4 of 12 texts \(33.3%\) .* --allow_overlap"):
        evaluate.main(arguments)
    assert not (tmp_path / "out").exists()
    evaluate.main([*arguments, "--allow_overlap=true"])
    found = results(tmp_path / "out")["overlap"]["text"]
    assert (found["count"], found["seen"], found["checked"], found["complete"]) == (12, 4, True, True)
    halves, items = found["bits_per_byte"], json.loads((tmp_path / "out" / "items" / "text.json").read_text())
    assert halves["clean"] == pytest.approx(sum(items["bits_per_byte"][:8]) / 8)
    assert halves["seen"] == pytest.approx(sum(items["bits_per_byte"][8:]) / 4)
    # It goes on with another text, and knows both.
    (workplace / "more.jsonl").write_text("".join(json.dumps({"text": text * 3}) + "\n" for text in new))
    more = {"data": workplace / "more.jsonl", "train_split": "train", "model_name_or_path": model, "max_steps": 2}
    run_here(workplace, "more", **more)
    carried = TrainingTexts.read(tmp_path / "more" / "final")
    assert carried is not None
    assert len(carried.sketches) == 2
    assert carried.seen([planted[0], new[0] * 3, "Something else, that is in neither of them."]).tolist() == [1, 1, 0]
    capsys.readouterr()
