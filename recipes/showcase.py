r"""Show models on a page in the browser: let them write, chat and classify, and look at what they do.

    python recipes/showcase.py --show runs/demo
    python recipes/showcase.py --show runs/demo/base runs/demo/chat --port 8080
    scratchgpt showcase runs/demo runs/reviews openai-community/gpt2                   # folders may stand alone
    python recipes/showcase.py --show runs/demo --documents runs/demo/data/reference   # the chat answers from these
    python recipes/showcase.py --show runs/demo --app_dir my_space                     # an app for a Space of the Hub

Give runs, folders of runs, model directories, adapters, tokenizers, or names on the Hub. A model is loaded when it is
first asked for; `--memory_gb` bounds the weights that are open at once, and the least recently used model leaves.
What computes waits in one queue. With `--documents`, as in recipes/chat.py, the chat answers from the passage that has
most words in common with the question, and shows it. The page answers to this machine only unless `--host` says
otherwise: there is no access control. It needs no network. Needs the extra [showcase]:
pip install "scratchgpt[showcase]"
"""

import importlib.util
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scratchgpt_cli.light import complete, postpone

if __name__ == "__main__":
    postpone("scratchgpt")  # the page's address answers before torch is there

from scratchgpt.arguments import RecipeArguments, option, parse_arguments, run_recipe
from scratchgpt.data.text import read_documents
from scratchgpt.showcase.finding import Found, find
from scratchgpt.showcase.waiting import address, answering, listen


@dataclass
class ShowcaseArguments(RecipeArguments):
    show: list[str] = option([], "Folders and names on the Hub; also without --show, before all other options.")
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = option(7860, "Port to listen on.", at_least=1, at_most=65535)
    documents: str | None = option(None, "Texts that the chat answers from: a folder, a file or a data set.")
    memory_gb: float = option(4.0, "Gigabytes of weights that may be open at once.", above=0)
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "Default: bfloat16 where it is fast.")
    device: str = option("cpu", "Where to compute: cpu, cuda, …")
    app_dir: str | None = option(None, "Write the page into this new folder, as an app for a gradio Space, and stop.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.show:
            raise ValueError("there is nothing to show: give runs, folders of runs, models, or names on the Hub")


def with_option(argv: list[str]) -> list[str]:
    """`runs/a runs/b --port 1` → `--show runs/a runs/b --port 1`; a YAML file stays what it is."""
    stands_alone = argv and not argv[0].startswith("-") and not argv[0].endswith((".yaml", ".yml"))
    return ["--show", *argv] if stands_alone else argv


def load(arguments: ShowcaseArguments, found: Found) -> Any:
    """All that takes seconds; returns a server of the page."""
    complete("scratchgpt")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read on import: it would ask the network for news
    from transformers.utils.logging import disable_progress_bar

    from scratchgpt.data.passages import Passages
    from scratchgpt.showcase.page import build_page, server_of
    from scratchgpt.showcase.shelf import Shelf
    from scratchgpt.training.metrics import read_metrics

    disable_progress_bar()
    shelf = Shelf(found, arguments.memory_gb * 1e9, arguments.dtype, arguments.device)
    passages = Passages.read(arguments.documents) if arguments.documents is not None else None
    return server_of(build_page(found, shelf, read_metrics, passages))


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ShowcaseArguments, with_option(sys.argv[1:] if argv is None else argv))
    found = find(arguments.show)
    if arguments.documents is not None:
        next(read_documents(arguments.documents), None)  # one that cannot be read is told before the port opens
    if arguments.device != "cpu":  # torch knows what there is: it is waited for where another is asked for
        from scratchgpt.performance import check_device

        check_device(arguments.device)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError('the page needs the extra [showcase]: pip install "scratchgpt[showcase]"')
    if arguments.app_dir is not None:
        from scratchgpt.showcase.app_folder import write_app

        kept = {name: value for name, value in asdict(arguments).items() if name in ("memory_gb", "dtype", "device")}
        written = {"host": "0.0.0.0", "port": arguments.port, **kept}
        write_app(arguments.show, arguments.app_dir, written, arguments.documents)
        print(f"wrote {arguments.app_dir}: its README.md says how to start it")
        return
    listening = listen(arguments.host, arguments.port)
    url = address(arguments.host, arguments.port)
    print(f"{url} says when the page is there: PyTorch is being loaded", flush=True)
    with answering(listening):
        server = load(arguments, found)
    print(f"showing {len(found.models)} models: {url}", flush=True)
    server.run([listening])


if __name__ == "__main__":
    run_recipe(main)
