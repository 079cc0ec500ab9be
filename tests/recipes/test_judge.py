"""recipes/judge.py: scores, pairs, people's preferences, and how far judges agree."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import cohen_kappa_score

from recipes import judge
from scratchgpt import ScratchGPTConfig, ScratchGPTForCausalLM
from scratchgpt.hub.model_directory import save_model
from scratchgpt.tokenizers import BPETokenizer, to_transformers
from tests.chat_server import said, server

ROWS = [
    {"instruction": f"Say {word}.", "output": word, "model_response": word[:2]} for word in ("one", "two", "three")
]


@pytest.fixture(autouse=True)
def this_machine_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def write(file: Path, rows: Any) -> str:
    file.write_text(json.dumps(rows))
    return str(file)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer: Any = to_transformers(
        BPETokenizer.train(["Which answer is better? Say the number."] * 9, vocab_size=300)
    )
    config = ScratchGPTConfig.from_preset(
        "modern", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=1024, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("judge")
    for name in ("model", "another"):
        torch.manual_seed(len(name))
        save_model(ScratchGPTForCausalLM(config), tokenizer, folder / name)
    return folder


def test_a_tiny_model_is_unfit(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """The second run generates nothing; another judge does not replace the first."""
    answers, out = write(tmp_path / "answers.json", ROWS), tmp_path / "judged"
    scores = write(tmp_path / "scores.json", [1, 2, 3])
    argv = [f"--answers={answers}", f"--output_dir={out}", f"--verdicts={scores}", "--max_new_tokens=4"]
    judge.main([*argv, f"--judge={tiny / 'model'}"])
    printed = capsys.readouterr().out
    assert "unfit as a judge: 3 of 3" in printed
    found = results(out)
    assert set(found) == {"model", "identities", "judge"}
    assert set(found["judge"]) == {"readable"}
    assert found["judge"]["readable"]["value"] == 0
    assert len(found["model"]["weights"]) >= 16

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is generated twice")

    monkeypatch.setattr("scratchgpt.evaluation.judge.generate_responses", never)
    judge.main([*argv, f"--judge={tiny / 'model'}"])
    assert results(out) == found
    with pytest.raises(ValueError, match=r"holds the results of .*model: give another"):
        judge.main([*argv, f"--judge={tiny / 'another'}"])
    assert results(out) == found


def test_pairs_and_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A judge that always says B: all ties where answers are compared, and no agreement with people."""
    mine = write(tmp_path / "mine.json", ROWS)
    people = [{**row, "chosen": row["output"], "rejected": row["model_response"]} for row in ROWS]
    with server(lambda number, body: said("B")) as (url, sent, _):
        argv = [f"--judge={url}", "--judge_model=m"]
        judge.main(["--answers", mine, mine, "--answer_column", "model_response", "output",
                    f"--output_dir={tmp_path / 'a'}", *argv])  # fmt: skip
        judge.main([f"--preferences={write(tmp_path / 'p.json', people)}", f"--output_dir={tmp_path / 'b'}", *argv])
        assert len(sent) == 12
    found = results(tmp_path / "a")["judge"]
    assert (found["win_rate"]["value"], found["changed_with_order"]["value"]) == (0.5, 1)
    assert "changed_with_order" in capsys.readouterr().out
    assert results(tmp_path / "b")["agreement"]["judge and people: agreement"]["value"] == 0


def test_a_judge_that_stops_goes_on(tmp_path: Path) -> None:
    """Each answer is asked about once, whatever happened in between."""
    accepted = [False]
    with server(lambda number, body: said("70") if number < 3 or accepted[0] else (401, {})) as (url, sent, _):
        argv = [
            f"--answers={write(tmp_path / 'answers.json', ROWS)}", f"--output_dir={tmp_path / 'out'}",
            f"--judge={url}", "--judge_model=m", "--batch_size=1",
        ]  # fmt: skip
        with pytest.raises(ValueError, match="does not reply"):
            judge.main(argv)
        assert not (tmp_path / "out" / "results.json").exists()
        accepted[0] = True
        judge.main(argv)
        assert len(sent) == 2 + 1 + 1
        judge.main(argv)
        assert len(sent) == 4
    assert results(tmp_path / "out")["judge"]["score"]["count"] == 3


def test_agreement_on_real_scores(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A judge that says what GPT-4 said agrees with it, and with Llama 3 as scipy and scikit-learn say."""
    folder = shared_data / "instruct" / "rasbt"
    one, other = (folder / "scores" / f"{name}-model-1-response.json" for name in ("gpt4", "llama3-8b"))
    gpt4, llama = json.loads(one.read_text()), json.loads(other.read_text())
    rows = json.loads((folder / "eval-example-data.json").read_text())
    asked = ["\n\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows]
    scores = dict(zip(zip(asked, [row["model 1 response"] for row in rows], strict=True), gpt4, strict=True))

    def script(number: int, body: dict) -> tuple[int, dict]:
        prompt = body["messages"][0]["content"]
        question = prompt.split("Question:\n")[1].split("\n\nReference answer:")[0]
        answer = prompt.split("Answer to grade:\n")[1].split("\n\nGive a score")[0]
        return said(str(scores[question, answer]))

    with server(script) as (url, sent, _):
        judge.main([
            f"--answers={folder / 'eval-example-data.json'}", "--answer_column=model 1 response", f"--judge={url}",
            "--judge_model=gpt4", "--verdicts", str(one), str(other), f"--output_dir={tmp_path / 'out'}",
        ])  # fmt: skip
        assert len(sent) == 100
    found = results(tmp_path / "out")
    assert found["judge"]["score"]["value"] == pytest.approx(sum(gpt4) / 100)
    agreement = found["agreement"]
    assert agreement[f"judge and {one.name}: pearson"]["value"] == pytest.approx(1)
    assert agreement[f"judge and {other.name}: pearson"]["value"] == pytest.approx(pearsonr(gpt4, llama)[0])
    kappa = cohen_kappa_score([each >= 50 for each in gpt4], [each >= 50 for each in llama])
    assert agreement[f"{one.name} and {other.name}: kappa"]["value"] == pytest.approx(kappa)
    assert f"| {one.name} and {other.name} | 100 |" in capsys.readouterr().out
    # Afterwards the file of this judge is as good as that of any other.
    judge.main(["--verdicts", str(tmp_path / "out" / "judge.jsonl"), str(one), f"--output_dir={tmp_path / 'two'}"])
    assert any(name.endswith("pearson") for name in results(tmp_path / "two")["agreement"])
