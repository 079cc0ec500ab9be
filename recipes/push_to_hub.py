"""Push to the Hub what is here: a model, adapter, tokenizer, data set or export, looked at before anything goes.

    python recipes/push_to_hub.py runs/mine/final --repo_id me/my-model --dry_run      # what would go
    python recipes/push_to_hub.py runs/mine/final --repo_id me/my-model                # private at first
    python recipes/push_to_hub.py runs/chat/final --repo_id me/my-chat --base_repo_id me/my-model
    python recipes/push_to_hub.py data/shakespeare --repo_id me/plays --private false
    python recipes/push_to_hub.py runs/gguf --repo_id me/my-model-gguf                 # for llama.cpp and Ollama
    python recipes/push_to_hub.py runs/page --repo_id me/my-page --space               # a static Space

What it is, is told from the directory; a page for the browser (`export --to web`) goes to a static Space, a GGUF
file or ONNX graphs to a repository of their own. Before anything goes, a model, adapter or tokenizer is loaded in a
process without this package, which has to give the same logits; weights must be safetensors, and no file may hold a
secret, an absolute path, your user name or a link. A card that was made here is made anew, with the name on the Hub. A
push that broke off goes on when it is started again. Log in with `hf auth login`, or set HF_TOKEN.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from scratchgpt.arguments import check, option, parse_arguments, required, run_recipe
from scratchgpt.hub.cards import CARD, write_card
from scratchgpt.hub.names import check_repo_id
from scratchgpt.hub.push import as_on_the_hub, in_bytes, push, repo_type, sizes
from scratchgpt.hub.push_checks import check_before_push, kind_of


@dataclass
class PushArguments:
    directory: str = required("What is pushed: the directory of a model, adapter, tokenizer, data set or export.")
    repo_id: str = required("Its name on the Hub, owner/name.")
    base_repo_id: str | None = option(None, "Of an adapter: its base's name on the Hub.")
    space: bool = option(False, "Push a page that export --to web wrote, to a static Space.")
    private: bool = option(True, "Make a new repository private; one that is there stays as it is.")
    revision: str | None = option(None, "Branch, made where it is not there; default: main.")
    commit_message: str | None = option(None, "First line of the commit; default: what was uploaded.")
    dry_run: bool = option(False, "Look at everything and list what would go; nothing is sent.")

    def __post_init__(self) -> None:
        check(self)


def main(argv: list[str] | None = None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    if given and not given[0].startswith("-") and not given[0].endswith((".yaml", ".yml")):
        given.insert(0, "--directory")
    arguments = parse_arguments(PushArguments, given)
    directory = Path(arguments.directory)
    kind = kind_of(directory)
    check_repo_id(arguments.repo_id)
    if arguments.space != (kind == "page"):
        raise ValueError(
            f"{directory} is a page for the browser, which goes to a Space: add --space"
            if kind == "page"
            else f"--space is for a page, and what is in {directory} ({kind}) is none: write one with export --to web"
        )
    if kind not in ("data set", "page", "export") and (directory / CARD).is_file():
        write_card(directory, arguments.repo_id)
    with as_on_the_hub(directory, arguments.repo_id, arguments.base_repo_id) as folder:
        check_before_push(directory, folder)
        if arguments.dry_run:
            files = sizes(folder)
            for name, size in files.items():
                print(f"{in_bytes(size):>12}  {name}")
            total = in_bytes(sum(files.values()))
            print(f"{len(files)} files, {total}, would go to {arguments.repo_id}, a {repo_type(folder)}")
            print("A dry run: nothing was sent.")
            return
        done = push(
            folder,
            arguments.repo_id,
            private=arguments.private,
            revision=arguments.revision,
            commit_message=arguments.commit_message or f"Upload {kind}",
        )
    there = f"; {done.there} were there already" if done.there else ""
    visible = "private" if done.private else "public"
    print(f"{done.sent} files, {in_bytes(done.num_bytes)}, sent to {done.url} ({visible}){there}")
    print(f"The state of now is revision {done.commit}")


if __name__ == "__main__":
    run_recipe(main)
