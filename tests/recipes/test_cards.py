"""The cards that recipes leave: adapters, classifiers, merged, imported and exported models, from real tiny runs."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import GPT2Config, GPT2LMHeadModel

from recipes import export_model, finetune_classifier, finetune_instruct, import_gpt2, merge_adapter
from scratchgpt.hub.cards import check_card
from tests.runs import make_workplace, run_here


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a base, an instruction adapter, a classifier, and what is made of them."""
    place = make_workplace(tmp_path_factory.mktemp("cards"))
    run_here(place, "base", vocab_size=384)
    common = ["--mixed_precision=no", "--compile=False", f"--model_name_or_path={place / 'base' / 'final'}"]
    rows = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "Gold!"}]}
        for i in range(40)
    ]
    (place / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = [f"{('gold', 'fox')[i % 2]} {chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(120)]
    (place / "labels.csv").write_text("\n".join(["text,label", *(f"{text},{text.split()[0]}" for text in texts)]))
    finetune_instruct.main(
        [*common, f"--data={place / 'chats.jsonl'}", f"--eval_data={place / 'chats.jsonl'}", "--eval_split=train",
         f"--output_dir={place / 'chat'}", "--max_steps=4", "--eval_steps=2", "--num_responses=3",
         "--response_tokens=4", "--lora_r=2"],
    )  # fmt: skip
    finetune_classifier.main(
        [*common, f"--data={place / 'labels.csv'}", f"--output_dir={place / 'classifier'}", "--tuning=lora",
         "--max_steps=4", "--per_device_train_batch_size=4", f"--cache_dir={place / 'cache'}"],
    )  # fmt: skip
    merge_adapter.main([f"--adapter={place / 'chat' / 'final'}", f"--output_dir={place / 'merged'}"])
    export_model.main([f"--model_name_or_path={place / 'merged'}", f"--output_dir={place / 'exported'}"])
    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, n_positions=32, vocab_size=300)
    GPT2LMHeadModel(config).save_pretrained(place / "gpt2")
    import_gpt2.main(
        [f"--model_name_or_path={place / 'gpt2'}", f"--output_dir={place / 'imported'}", "--tokenizer=none"]
    )
    return place


EXPECTED = {
    "base/final": ("transformers", "text-generation", "A base model."),
    "chat/final": ("peft", "text-generation", "An adapter for a chat model."),
    "classifier/final": ("peft", "text-classification", "An adapter for a classifier. It tells fox, gold apart."),
    "classifier/merged": ("transformers", "text-classification", "A classifier. It tells fox, gold apart."),
    "merged": ("transformers", "text-generation", "The adapter is merged into its base here"),
    "exported": ("transformers", "text-generation", "Exported to the qwen3 architecture"),
    "imported": ("transformers", "text-generation", "A GPT-2 imported from"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_says_what_it_is(place: Path, name: str) -> None:
    directory = place / name
    library, task, summary = EXPECTED[name]
    text, data = (directory / "README.md").read_text(), ModelCard.load(directory / "README.md").data.to_dict()
    assert summary in text
    assert (data["library_name"], data["pipeline_tag"]) == (library, task)
    assert [problem for problem in check_card(directory) if "names no base_model" not in problem] == []
    assert ("names no base_model" in "".join(check_card(directory))) == (library == "peft")
    assert str(place) not in text
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, name, "exec")


def test_what_is_made_of_an_adapter_tells_of_its_run(place: Path) -> None:
    results = json.loads((place / "chat" / "results.json").read_text())
    scores = json.loads((place / "chat" / "responses.json").read_text())
    for name in ("chat/final", "merged", "exported"):
        text = (place / name / "README.md").read_text()
        assert f"| {results['final']['loss']:.4f} |" in text
        assert f"| tuned | {scores['tuned']['rouge_l']:.4f} |" in text
        assert "**Few answers were scored**: 3." in text
        assert "**Few examples**: it was tuned on 40 conversations." in text
        assert (place / name / "loss.png").is_file()
    assert "scratchgpt merge arguments.yaml" in (place / "merged" / "README.md").read_text()


def test_a_classifier_of_few_examples_says_so(place: Path) -> None:
    results = json.loads((place / "classifier" / "results.json").read_text())
    for name in ("final", "merged"):
        text = (place / "classifier" / name / "README.md").read_text()
        assert f"| this model | {results['test']['accuracy']:.2%} |" in text
        assert f"**Few examples**: it was tuned on {sum(results['labels']['train'].values())} texts." in text
        assert f"**Measured on few texts**: {results['test']['num_texts']}." in text
        assert (place / "classifier" / name / "confusion.png").is_file()
