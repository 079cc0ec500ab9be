"""The section of a card on how to load what it is about."""

from .card_facts import Facts, read_json
from .markdown import fenced

REMOTE_CODE = (
    "This runs the Python files in the repository: read them, and put the hash of the commit that you have read "
    "in the place of COMMIT, so that nobody can change them afterwards."
)


def loading(facts: Facts, repo_id: str) -> str:
    """Three ways, where there are three."""
    if facts.kind == "tokenizer":
        return _loading_tokenizer(facts, repo_id)
    task = "text-classification" if facts.kind == "classifier" else "text-generation"
    asked = {
        "base model": '"Once", max_new_tokens=50',
        "chat model": '[{"role": "user", "content": "Hello!"}], max_new_tokens=50',
        "classifier": '"a text", truncation=True',
    }[facts.kind]
    call = f'from transformers import pipeline\n\nmodel = pipeline("{task}", "{repo_id}"%s)\nprint(model({asked}))'
    needed = " bitsandbytes" if facts.weight_bits is not None else ""
    if facts.made_by == "export" and facts.made_with["to"] != "scratchgpt":
        plain, install = call % "", f" (`pip install{needed}`)" if needed else ""
        return f"Without any code of its own{install}:\n\n{fenced(plain, 'python')}"
    if facts.is_adapter:
        return _loading_adapter(facts, repo_id)
    with_package = f"import scratchgpt  # registers the model\n{call % ''}"
    pinned = ', revision="COMMIT", trust_remote_code=True'
    without = call % pinned
    parts = [
        f"With the package (`pip install scratchgpt{needed}`):",
        fenced(with_package, "python"),
        f"Without it{f' (`pip install{needed}`)' if needed else ''}. {REMOTE_CODE}",
        fenced(without, "python"),
    ]
    return "\n\n".join(parts if needed else [*parts, _exporting(facts, repo_id)])


def _loading_tokenizer(facts: Facts, repo_id: str) -> str:
    call = f'from transformers import AutoTokenizer\n\ntokenizer = AutoTokenizer.from_pretrained("{repo_id}"%s)'
    if "auto_map" not in read_json(facts.directory / "tokenizer_config.json"):
        return f"Without any code of its own:\n\n{fenced(call % '', 'python')}"
    pinned = ', revision="COMMIT", trust_remote_code=True'
    return "\n\n".join(
        [
            "With the package (`pip install scratchgpt`):",
            fenced("import scratchgpt  # registers the tokenizer\n" + call % "", "python"),
            f"Without it. {REMOTE_CODE}",
            fenced(call % pinned, "python"),
            "Without any code, in every library that reads `tokenizer.json`:",
            fenced(
                f'from tokenizers import Tokenizer\n\ntokenizer = Tokenizer.from_pretrained("{repo_id}")', "python"
            ),
        ]
    )


def _exporting(facts: Facts, repo_id: str) -> str:
    if facts.kind == "classifier":
        return (
            "As a model of another family: not possible for a classifier; `scratchgpt export` is for language models."
        )
    family = "qwen3" if facts.config.get("qk_norm") else "llama"
    family = "gpt2" if facts.config.get("position_embedding_type") != "rotary" else family
    command = f"scratchgpt export --model_name_or_path {repo_id} --to {family} --output_dir exported"
    plain = 'from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained("exported")'
    return (
        f"As a {family} model, which every engine knows (transformers, vLLM) and which needs no code:\n\n"
        f"{fenced(command, 'bash')}\n\n{fenced(plain, 'python')}"
    )


def _loading_adapter(facts: Facts, repo_id: str) -> str:
    kind = "AutoPeftModelForSequenceClassification" if facts.kind == "classifier" else "AutoPeftModelForCausalLM"
    labels = f", num_labels={len(facts.labels)}" if facts.kind == "classifier" else ""
    with_package = (
        "from scratchgpt.adapters import load_adapter\n\n"
        f'model, tokenizer = load_adapter("{repo_id}")  # base="…": where the base is now'
    )
    without = (
        f"from peft import {kind}\n\n"
        f'model = {kind}.from_pretrained("{repo_id}", revision="COMMIT", trust_remote_code=True{labels})'
    )
    merge = f"scratchgpt merge --adapter {repo_id} --output_dir merged"
    if facts.kind != "classifier":
        family = "qwen3" if facts.config.get("qk_norm") else "llama"
        family = "gpt2" if facts.config.get("position_embedding_type") != "rotary" else family
        merge += f"\nscratchgpt export --model_name_or_path merged --to {family} --output_dir exported"
    return "\n\n".join(
        [
            f"It works only on the base that it was trained on, `{facts.base}`. With the package "
            "(`pip install scratchgpt`), which checks that:",
            fenced(with_package, "python"),
            "With peft alone, which does not. trust_remote_code runs the Python files of the base: read them.",
            fenced(without, "python"),
            "Merged into its base, and then as a model of a family that every engine knows:"
            if facts.kind != "classifier"
            else "Merged into its base, as a whole model:",
            fenced(merge, "bash"),
        ]
    )
