"""The `Modelfile` with which Ollama runs a GGUF file: `ollama create mine -f Modelfile`.

Ollama does not run the chat template of the file, which is Jinja: it has templates of its own, in Go's language. Ours
is translated by hand; a template of somebody else's is left to Ollama, which knows some by heart.

Source: Ollama's docs/modelfile.md and docs/template.md.
"""

from typing import Any

from ..tokenization_scratchgpt import CHAT_TEMPLATE

CHAT = "{{- range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"
"""`CHAT_TEMPLATE` in Go's template language."""

PLAIN = "{{ .Prompt }}"

SAMPLING = ("temperature", "top_k", "top_p", "min_p")
"""Names of transformers' that Ollama has too."""


def modelfile(file_name: str, tokenizer: Any, generation_config: Any, context: int, is_chat: bool) -> str:
    """The content of a Modelfile beside the GGUF file.

    Args:
        is_chat: whether the model was tuned to answer; another continues the prompt as it is.
        context: tokens.
    """
    lines = [f"FROM ./{file_name}"]
    if not is_chat:
        lines.append(f'TEMPLATE """{PLAIN}"""')
    elif tokenizer.chat_template == CHAT_TEMPLATE:
        lines.append(f'TEMPLATE """{CHAT}"""')
        lines.append('PARAMETER stop "<|end|>"')
    lines += [f'PARAMETER stop "{tokenizer.eos_token}"', f"PARAMETER num_ctx {context}"]
    if generation_config.do_sample:
        settings = {name: getattr(generation_config, name) for name in SAMPLING}
        lines += [f"PARAMETER {name} {value}" for name, value in settings.items() if value is not None]
    elif generation_config.do_sample is False:
        lines.append("PARAMETER temperature 0")
    if (penalty := generation_config.repetition_penalty) is not None:
        lines.append(f"PARAMETER repeat_penalty {penalty}")
    return "\n".join(lines) + "\n"
