r"""Serve a model over HTTP, for any client of OpenAI's interface.

    python recipes/serve.py --model runs/demo/chat/final --port 8000
    python recipes/serve.py --model runs/dolly/final --weight_bits 8 --compile true       # fast on the CPU
    curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \
        -d '{"messages": [{"role": "user", "content": "What is a list?"}]}'             # in another terminal

`--model` is a model directory or Hub name, or an adapter, as in recipes/chat.py. It offers POST /v1/chat/completions
(streamed or whole), GET /v1/models and GET /health, to this machine only unless `--host` says otherwise: there is no
access control. Without max_tokens an answer may fill the context; what does not fit is refused with status 400. With
`--documents`, as in recipes/chat.py, the last message is asked by itself, behind the passage that fits it, and the
response has a field `passage`.
Needs the extra [serve]: pip install "scratchgpt[serve]"
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers.utils.logging import disable_progress_bar

import scratchgpt  # noqa: F401 - registers the classes
from scratchgpt.arguments import RecipeArguments, option, parse_arguments, required, run_recipe
from scratchgpt.data.passages import Passages
from scratchgpt.inference.decoding import load_for_decoding
from scratchgpt.performance import check_device


@dataclass
class ServeArguments(RecipeArguments):
    HELP_GROUPS = {"model": "Model", "documents": "Answers", "dtype": "Speed and memory"}

    model: str = required("Model directory or Hub name, or the directory of an adapter.")
    base: str | None = option(None, "The base of an adapter, if it is no longer where it was.")
    name: str | None = option(None, "What clients call the model; default: the last two parts of its path.")
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = option(8000, "Port to listen on; 0: any that is free.", at_least=0, at_most=65535)
    documents: str | None = option(None, "Texts to answer from: a folder, a file or a data set.")

    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "Default: bfloat16 where it is fast.")
    weight_bits: Literal[8, 4] | None = option(None, "Weights rounded to so many bits, for speed on the CPU.")
    compile: bool = option(False, "Compile the decoding step: faster answers, after a wait for the first one.")
    device: str = option("cpu", "Where to compute: cpu, cuda, …")


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ServeArguments, argv)
    try:
        import uvicorn

        from scratchgpt.inference.server import ChatServer, build_app
    except ImportError as error:
        raise ValueError(f'{error}: serving needs the extra [serve]: pip install "scratchgpt[serve]"') from error
    disable_progress_bar()
    check_device(arguments.device)
    passages = Passages.read(arguments.documents) if arguments.documents is not None else None
    model, tokenizer = load_for_decoding(
        arguments.model, arguments.base, arguments.dtype, arguments.weight_bits, arguments.device
    )
    name = arguments.name or "/".join(Path(arguments.model).parts[-2:])
    app = build_app(ChatServer(model, tokenizer, name, arguments.compile, passages))
    print(f"serving {name}", flush=True)
    uvicorn.run(app, host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    run_recipe(main)
