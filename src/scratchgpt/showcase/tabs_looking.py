"""The tabs that look at models and runs: classifiers, tokenizers, attention, training curves, reports."""

import re
from html import escape
from typing import Any

import gradio as gr

from . import looking, training_runs
from .drawing import bars, head_grid, legend, note, picture, score_grid, table, tokens, with_pictures
from .finding import Found
from .shelf import Shelf
from .training_runs import CURVES, Read
from .widgets import COMPUTES, choice, choices, chosen_of, clickable, missing, number_in, told, trusting


def side_by_side(blocks: list[tuple[str, str]]) -> str:
    parts = "".join(f"<section><h3>{title}</h3>{content}</section>" for title, content in blocks)
    return f'<div class="sg-columns">{parts}</div>'


def classify(shelf: Shelf) -> None:
    """One text, read by several classifiers."""

    def one(name: str, text: str) -> str:
        found = looking.classify(shelf, name, text)
        shown = bars((label, [value]) for label, value in list(found.probabilities.items())[:10])
        if found.moved:
            most = max(map(abs, found.moved)) or 1.0
            words = [word.strip() for word in found.words[: len(found.moved)]]
            titles = [f"without it {-change:+.1%}" for change in found.moved]
            shown += legend(f"speaks against “{found.label}”", "for it")
            shown += tokens(words, [change / most for change in found.moved], titles, clickable=False)
            if len(words) < len(found.words):
                shown += note(f"The first {len(words)} words were tried.")
        return shown + (note("The text is longer than the model reads, and was cut.") if found.was_cut else "")

    @told
    def run(names: list[str], text: str) -> str:
        chosen = chosen_of(names, shelf.found.names("classifier"), "classifier")
        return side_by_side([(escape(name), one(name, text)) for name in chosen])

    with gr.Tab("Classify"):
        names = shelf.found.names("classifier")
        if not names:
            return missing("classifier")
        chosen = choices(names, names[:3], "Classifiers")
        text = gr.Textbox("Return the sine of x, and write it to a file.", lines=4, max_lines=12, label="Text")
        start = gr.Button("Classify", variant="primary")
        shown = gr.HTML(elem_id="classified")
    start.click(run, [chosen, text], shown, **COMPUTES)
    return None


def tokenizers(shelf: Shelf) -> None:
    """One text, cut by several tokenizers."""

    @told
    def run(names: list[str], text: str, with_ids: bool) -> str:
        cuts = looking.cut(shelf, chosen_of(names, shelf.found.tokenizers, "tokenizer"), text)
        shown = table(["", "tokens", "tokens per word", "bytes per token"], looking.counts(cuts))
        blocks = []
        for name, labels in cuts.labels.items():
            ids = cuts.ids[name]
            pieces = [f"{label} {each}" for label, each in zip(labels, ids, strict=True)] if with_ids else labels
            shares = [0.25 if number % 2 else -0.25 for number in range(len(ids))]
            blocks.append((escape(name), tokens(pieces, shares, [f"id {each}" for each in ids], clickable=False)))
        return shown + side_by_side(blocks)

    with gr.Tab("Tokenizers"):
        names = list(shelf.found.tokenizers)
        if not names:
            return missing("tokenizer")
        chosen = choices(names, names, "Tokenizers", "those that cut alike are one")
        text = gr.Textbox(
            "A word that nobody has seen: untokenizability. Zwölf 🎉", lines=4, max_lines=12, label="Text"
        )
        with_ids = gr.Checkbox(False, label="Show ids")
        start = gr.Button("Cut", variant="primary")
        shown = gr.HTML(elem_id="cuts")
    gr.on([start.click, with_ids.change], run, [chosen, text, with_ids], shown)
    return None


def heads_in(text: str | None) -> list[tuple[int, int]]:
    """`0.1 3.2` → [(0, 1), (3, 2)]. Raises ValueError for anything else."""
    parts = re.split(r"[\s,;]+", (text or "").strip()) if (text or "").strip() else []
    if wrong := [part for part in parts if not re.fullmatch(r"\d{1,4}\.\d{1,4}", part)]:
        raise ValueError(f"{wrong[0][:20]} is no head: write layer.head, such as 0.1")
    return [(int(layer), int(head)) for layer, _, head in (part.partition(".") for part in parts)]


def attention(shelf: Shelf) -> None:
    """Every head's map; what one of them reads from a token; what is lost without some."""

    def one_head(seen: dict[str, Any]) -> str:
        found = looking.all_attention(shelf, seen["name"], seen["text"], seen["off"])
        layer, head = divmod(seen["number"], found.weights.shape[1])
        if layer >= found.weights.shape[0]:
            raise ValueError("there is no such head: look again")
        position = min(seen["position"], len(found.labels) - 1)
        shares = found.row(layer, head, position)
        titles = [f"{share:.1%}" for share in shares]
        rest = len(found.labels) - len(shares)
        large = f'<img class="sg-map sg-large" alt="the map of this head" src="{picture(found.weights[layer, head])}">'
        return (
            f"<h3>Layer {layer}, head {head}</h3>"
            + note(f"What “{found.labels[position]}” (number {position}) reads. Click another token to stand there.")
            + tokens(found.labels, [*shares, *[0.0] * rest], [*titles, *["comes later"] * rest], chosen=position)
            + note("A row of the map is a token that reads, a column one that is read; dark is much.")
            + large
        )

    @told
    def look(name: str, text: str, off: str) -> tuple[dict[str, Any], str, str, str]:
        heads = heads_in(off)
        found = looking.all_attention(shelf, name, text, heads)
        seen = {"name": name, "text": text, "off": heads, "number": 0, "position": len(found.labels) - 1}
        return seen, head_grid(found.weights), one_head(seen), effect(name, text, heads)

    def effect(name: str, text: str, heads: list[tuple[int, int]]) -> str:
        if not heads:
            return ""
        found = looking.with_and_without(shelf, name, text, heads)
        said = f"{found.bits[0]:.3f} bits per token with all heads, {found.bits[1]:.3f} without these."
        return note(said) + legend("next token with all heads", "without these") + bars(found.next)

    @told
    def choose_head(event: gr.EventData, seen: dict[str, Any] | None) -> tuple[dict[str, Any], str]:
        seen = {**(seen or _nothing()), "number": number_in(event)}
        return seen, one_head(seen)

    @told
    def choose_token(event: gr.EventData, seen: dict[str, Any] | None) -> tuple[dict[str, Any], str]:
        seen = {**(seen or _nothing()), "position": number_in(event)}
        return seen, one_head(seen)

    @told
    def worth(name: str, text: str) -> str:
        found = looking.lost_without(shelf, name, text)
        return note("Bits per token that are lost without each head; below 0 the text was likelier without it.") + (
            score_grid(found.scores)
        )

    with gr.Tab("Attention"):
        names = shelf.found.names("language model", "chat")
        if not names:
            return missing("language model")
        model = choice(names, "Model")
        text = gr.Textbox("the cat saw the dog, and the dog saw the cat", lines=2, max_lines=6, label="Text")
        off = gr.Textbox(label="Heads that are switched off", placeholder="0.1 3.2", info="layer.head", max_lines=1)
        with gr.Row():
            start = gr.Button("Look", variant="primary")
            worth_button = gr.Button("What is each head worth?")
        changed = gr.HTML(elem_id="effect")
        gr.Markdown("### All heads\nA row for each layer. Click a head to see it large.")
        grid = clickable(elem_id="heads")
        one = clickable(elem_id="one-head")
        scores = gr.HTML(elem_id="scores")
        seen = gr.State()
    gr.on([start.click, off.submit], look, [model, text, off], [seen, grid, one, changed], **COMPUTES)
    grid.click(choose_head, seen, [seen, one], **COMPUTES)
    one.click(choose_token, seen, [seen, one], **COMPUTES)
    worth_button.click(worth, [model, text], scores, **COMPUTES)
    return None


def _nothing() -> dict[str, Any]:
    raise ValueError("look at a text first")


def runs(found: Found, read: Read) -> None:
    """Curves of several runs in one plot, and what their scores cost."""
    import pandas as pd

    @told
    def draw(names: list[str], shown: str) -> Any:
        if not isinstance(shown, str) or shown not in CURVES:
            raise ValueError("choose what is shown")
        names = chosen_of(names, found.runs, "run")
        return gr.LinePlot(pd.DataFrame(training_runs.curves(found.runs, names, shown, read)), y_title=shown)

    @told
    def cost(names: list[str]) -> tuple[str, Any]:
        rows = training_runs.costs(found.runs, chosen_of(names, found.runs, "run"))
        header = ["run", "tuning", "trained parameters", "seconds", "loss", "accuracy"]
        shown = table(header, [[training_runs.in_words(row, column) for column in header] for row in rows])
        figure = training_runs.draw_costs(rows)
        return shown, gr.Plot(figure, visible=figure is not None)

    with gr.Tab("Runs") as tab:
        names = list(found.runs)
        if not names:
            return missing("training run")
        chosen = choices(names, names, "Runs")
        shown = trusting(gr.Radio(list(CURVES), value=next(iter(CURVES)), label="Curve"))
        curve = gr.LinePlot(x="step", y="value", color="run", label="By step", show_label=False, height=420)
        gr.Markdown("### What a score cost\nAccuracies with their 95 % intervals.")
        rows = gr.HTML(elem_id="costs")
        chart = gr.Plot(label="Accuracy, with 95 % intervals", show_label=False, visible=False)
    gr.on([tab.select, chosen.change, shown.change], draw, [chosen, shown], curve)
    gr.on([tab.select, chosen.change], cost, chosen, [rows, chart])
    return None


def evaluation(found: Found) -> None:
    """The pages that recipes wrote about runs."""

    @told
    def show(name: str) -> str:
        if not isinstance(name, str) or name not in found.reports:
            raise ValueError("choose a report")
        return with_pictures(found.reports[name])

    with gr.Tab("Evaluation") as tab:
        names = list(found.reports)
        if not names:
            return missing("report (results-page and compare write one)")
        chosen = choice(names, "Report")
        page = gr.Markdown(elem_id="report")
    gr.on([tab.select, chosen.change], show, chosen, page)
    return None
