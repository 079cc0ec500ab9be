"""data_builders/pdf: from a page to sections, on PDFs that are drawn here and on shared reports where they are."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pymupdf = pytest.importorskip("pymupdf")

from data_builders.pdf.document import Options, to_text  # noqa: E402
from data_builders.pdf.extraction import extract  # noqa: E402
from data_builders.pdf.lines import clean_characters  # noqa: E402
from data_builders.pdf.words import count_words, join_lines, keeps_hyphen, mend_spaces  # noqa: E402
from tests.data_builders.pdfs import BOLD, FILLER, ITALIC, Paper  # noqa: E402

LEFT, RIGHT = (60.0, 296.0), (316.0, 552.0)


@pytest.fixture(scope="module")
def two_columns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pages in two columns with everything that a paper has."""
    paper = Paper()
    for number in range(1, 4):
        paper.page()
        paper.put(60, 40, "Journal of Small Studies, Volume 7", 9, ITALIC)
        paper.put(300, 770, str(number), 9)
        # Drawn right column first: the order in the file says nothing.
        if number == 1:
            paper.put(120, 85, "A Study of Columns and Footnotes", 18, BOLD)
            paper.put(200, 110, "Ann Author, Bob Writer and Carla Third", 11)
            paper.put(230, 126, "University of Somewhere", 10)
            paper.put(20, 600, "arXiv:2302.13971v1 [cs.CL] 27 Feb 2023", 18, rotate=90)
            paper.column, paper.y = RIGHT, 160
            paper.paragraph(f"Right column of page one begins here. {FILLER * 3}")
            paper.table(
                [["Model", "Size", "Score"], ["LLaMA", "65B", "63.4"], ["Chinchilla", "70B", "67.5"]],
                "Table 1: Scores of two models. Higher is better in each of the columns.",
            )
            paper.paragraph("Table 1 shows that the larger model is better, by a margin that is worth its cost.")
            paper.paragraph(
                "Training took 10^{22} operations and 3^{8} days, as described elsewhere in detail before."
            )
            paper.paragraph(
                f"The last sentence of this page goes on where the next page begins, {FILLER[:60]} and then it"
            )
            paper.column, paper.y = LEFT, 160
            paper.heading("Abstract")
            paper.paragraph(f"We study how text runs through two columns. {FILLER}")
            paper.heading("1 Introduction")
            paper.paragraph(
                f"{FILLER} Our state-of-|the-art founda|tion model is a foundation for later work. {FILLER} The code "
                f"is public.^{{1}} {FILLER}"
            )
            paper.footnote("1", "The code is at the address example.org.", 740)
        elif number == 2:
            paper.column, paper.y = LEFT, 72
            paper.paragraph(f"finally comes to an end. {FILLER}")
            paper.current.draw_rect((70, paper.y, 280, paper.y + 120), fill=(0.9, 0.9, 1))
            paper.put(90, paper.y + 30, "Encoder", 8)
            paper.put(180, paper.y + 60, "Decoder 12", 8)
            paper.y += 140
            paper.paragraph("Figure 1: The two parts of the model and how they are joined in training.", 9)
            paper.heading("2 Method")
            paper.heading("2.1 Data", 11)
            paper.paragraph(FILLER * 2)
            paper.column, paper.y = RIGHT, 72
            paper.heading("2.2 Training", 11)
            for item in ("the first of the things that matter here", "the second of the things that matter"):
                paper.paragraph(f"• It is {item}.")
            paper.paragraph(FILLER * 2)
        else:
            paper.column, paper.y = LEFT, 72
            paper.heading("References")
            paper.paragraph(
                "Ann Author. 2020. How to write in two columns. In Proceedings of the Workshop on Writing."
            )
            paper.paragraph("Bob Writer. 2021. How to read in two columns. Journal of Reading, pages 3 to 14.")
            paper.column, paper.y = RIGHT, 72
            paper.heading("A Further details")
            paper.paragraph(f"The appendix stays. {FILLER}")
    return paper.save(tmp_path_factory.mktemp("pdf") / "columns.pdf")


@pytest.fixture(scope="module")
def text(two_columns: Path) -> str:
    return to_text(extract(two_columns, Options()).document)


def test_title_and_abstract_are_found_and_authors_go(text: str) -> None:
    assert text.startswith("# A Study of Columns and Footnotes\n\n## Abstract\n\nWe study how text runs")
    assert "Carla Third" not in text
    assert "University" not in text


def test_columns_are_read_one_after_the_other(text: str) -> None:
    order = ["We study how", "foundation for later", "Right column of page one", "The appendix stays"]
    places = [text.index(each) for each in order]
    assert places == sorted(places)


def test_headers_page_numbers_and_stamps_go(text: str) -> None:
    assert "Journal of Small" not in text
    assert "arXiv" not in text
    assert not re.search(r"^\d$", text, re.M)


def test_headings_stay_in_their_order_with_their_levels(text: str) -> None:
    assert re.findall(r"^#+ .*", text, re.M) == [
        "# A Study of Columns and Footnotes",
        "## Abstract",
        "## 1 Introduction",
        "## 2 Method",
        "### 2.1 Data",
        "### 2.2 Training",
        "## A Further details",
    ]


def test_tables_captions_and_figures_go_and_prose_about_them_stays(text: str) -> None:
    assert "Chinchilla" not in text
    assert "Scores of two models" not in text
    assert "Encoder" not in text
    assert "joined in training" not in text
    assert "\n\nTable 1 shows that the larger model is better, by a margin that is worth its cost.\n" in text


def test_exponents_stay_and_marks_of_footnotes_go(text: str) -> None:
    assert "Training took 10^22 operations and 3^8 days" in text
    assert "The code is public. The model" in text


def test_no_footnote_interrupts_a_sentence(text: str) -> None:
    assert "example.org" not in text
    assert "and then it finally comes to an end." in text


def test_words_cut_by_line_ends_are_whole(tmp_path: Path) -> None:
    paper = Paper(column=LEFT).page()
    for start in range(0, 40, 10):
        cases = (
            f"Case {n} {'so ' * (n % 7)}our state-of-|the-art founda|tion model is no foundation."
            for n in range(start, start + 10)
        )
        paper.paragraph(" ".join(cases))
    file = paper.save(tmp_path / "cut.pdf")
    with pymupdf.open(file) as pdf:
        plain = pdf[0].get_text()
    assert plain.count("state-of-\n") >= 3
    assert plain.count("founda-\n") >= 3
    text = to_text(extract(file, Options()).document)
    assert text.count("our state-of-the-art foundation model is no foundation.") == 40


def test_references_go_and_the_appendix_stays(two_columns: Path, text: str) -> None:
    assert "Proceedings" not in text
    assert "## A Further details\n\nThe appendix stays." in text
    assert "Proceedings" in to_text(extract(two_columns, Options(keep_references=True)).document)


def test_items_of_lists_are_paragraphs(text: str) -> None:
    assert "\n\n- It is the first of the things that matter here.\n\n- It is the second" in text


def test_knobs_keep_what_is_left_out(two_columns: Path) -> None:
    kept = to_text(extract(two_columns, Options(keep_captions=True, keep_footnotes=True)).document)
    assert "Table 1: Scores of two models." in kept
    assert "The code is at the address example.org." in kept


def test_what_is_removed_is_counted_by_step(two_columns: Path) -> None:
    removed = extract(two_columns, Options()).removed.characters()
    for step in ("headers, footers and page numbers", "stamps and turned text", "tables", "captions", "footnotes"):
        assert removed[step] > 20, step
    assert removed["references"] > 100


def test_the_order_of_the_file_says_nothing(tmp_path: Path) -> None:
    """The columns of the page above are drawn right first; pymupdf's plain text follows the file."""
    paper = Paper().page()
    paper.column, paper.y = RIGHT, 72
    paper.paragraph(f"Second of all. {FILLER * 2}")
    paper.column, paper.y = LEFT, 72
    paper.paragraph(f"First of all. {FILLER * 2}")
    file = paper.save(tmp_path / "order.pdf")
    text = to_text(extract(file, Options()).document)
    assert text.index("First of all") < text.index("Second of all")
    with pymupdf.open(file) as pdf:
        plain = pdf[0].get_text()
    assert plain.index("First of all") > plain.index("Second of all")


def test_one_column_with_a_short_last_line_is_no_second_column(tmp_path: Path) -> None:
    paper = Paper().page()
    for number in range(6):
        paper.paragraph(f"Paragraph {number} fills the page from side to side. {FILLER}")
    text = to_text(extract(paper.save(tmp_path / "one.pdf"), Options()).document)
    assert [int(each) for each in re.findall(r"Paragraph (\d)", text)] == list(range(6))
    assert text.count("Longer runs were not needed for the purpose of this study.") == 6


def test_a_number_at_the_top_of_a_page_may_be_that_of_a_heading(tmp_path: Path) -> None:
    """LLaMA's "2 Approach" begins a page, where page numbers stand: the number was lost."""
    paper = Paper()
    for number in range(1, 5):
        paper.page()
        paper.put(72, 74, str(number), 12, BOLD)
        paper.put(100, 74, f"Chapter called {'abcd'[number - 1]}", 12, BOLD)
        paper.put(300, 770, str(number), 9)
        paper.y = 110
        paper.paragraph(FILLER * 2)
    text = to_text(extract(paper.save(tmp_path / "top.pdf"), Options()).document)
    assert re.findall(r"^## (.*)", text, re.M) == [f"{n} Chapter called {'abcd'[n - 1]}" for n in range(1, 5)]


def test_headings_that_would_step_back_are_none(tmp_path: Path) -> None:
    """A bold line "2 …" after section 4 is an item, not section 2 again."""
    paper = Paper().page()
    for number in (1, 2, 3):
        paper.heading(f"{number} Section number {number}").paragraph(FILLER)
    paper.heading("2 Something that looks like one")
    paper.paragraph(FILLER)
    text = to_text(extract(paper.save(tmp_path / "back.pdf"), Options()).document)
    assert re.findall(r"^## (\d)", text, re.M) == ["1", "2", "3"]


def test_formulas_go_and_the_sentence_goes_on(tmp_path: Path) -> None:
    paper = Paper().page()
    paper.heading("1 Loss").paragraph(f"{FILLER} The loss is the mean over all tokens of the batch, given by")
    paper.put(200, paper.y, "L = − ∑ p(x) log q(x) + λ ∥w∥", 10, "symb")
    paper.put(525, paper.y, "(1)", 10)
    paper.y += 20
    paper.paragraph("where the sum runs over all words that were seen in training.")
    text = to_text(extract(paper.save(tmp_path / "formula.pdf"), Options()).document)
    assert "(1)" not in text
    assert "given by where the sum runs" in text


COUNTS = Counter(
    {"model": 5, "tuning": 4, "fine-tuning": 6, "multi-modal": 2, "human": 3, "state": 2, "sentencepiece": 2}
)


@pytest.mark.parametrize(
    ("left", "right", "whole"),
    [
        ("mo", "del", "model"),
        ("fine", "tuning", "fine-tuning"),
        ("fine-tun", "ing", "fine-tuning"),
        ("multi", "modal", "multi-modal"),
        ("state-of", "the-art", "state-of-the-art"),
        ("GPT", "4", "GPT-4"),
        ("LLaMA", "65B", "LLaMA-65B"),
        ("Sentence", "Piece", "SentencePiece"),
        ("human", "annotated", "human-annotated"),
        ("under", "standing", "understanding"),
        ("train", "ing", "training"),
        ("demon", "strate", "demonstrate"),
    ],
)
def test_hyphens_at_line_ends(left: str, right: str, whole: str) -> None:
    assert join_lines(f"we say {left}-", f"{right} again", COUNTS) == f"we say {whole} again"


def test_the_document_decides() -> None:
    assert keeps_hyphen("pre", "training", Counter({"pre-training": 3, "pretraining": 1}))
    assert not keeps_hyphen("pre", "training", Counter({"pre-training": 1, "pretraining": 3}))


def test_parts_of_cut_words_do_not_count_as_words() -> None:
    counts = count_words(["a founda-", "tion of the state-of-", "the-art founda"])
    assert counts["tion"] == 0
    assert counts["founda"] == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ﬁne eﬀort ﬂow", "fine effort flow"),
        ("(cid:12)x(cid:3)", "x"),
        ("10²²", "10^22"),
        ("𝜋𝑥", "πx"),
        ("a\u200bb\ufffdc\ue123", "abc"),
        ("co\u2011op", "co-op"),
        ("数组，合并（一）", "数组，合并（一）"),
    ],
)
def test_characters(before: str, after: str) -> None:
    assert clean_characters(before) == after


@given(st.text(max_size=60))
def test_cleaning_characters_twice_changes_nothing(text: str) -> None:
    once = clean_characters(text)
    assert clean_characters(once) == once


@given(st.text(alphabet="ab -.,()\n", max_size=60))
def test_mending_spaces_keeps_everything_else(text: str) -> None:
    assert mend_spaces(text).replace(" ", "") == re.sub(r"\s", "", text)


REPORTS = {
    "DeepSeek_R1": ("DeepSeek-R1: Incentivizing Reasoning Capability in LLMs via Reinforcement Learning", 26),
    "Kimi_k1.5": ("KIMI K1.5: SCALING REINFORCEMENT LEARNING WITH LLMS", 38),
    "LLaMA": ("LLaMA: Open and Efficient Foundation Language Models", 25),
    "Qwen3_Technical_Report": ("Qwen3 Technical Report", 20),
    "Skywork_13b_tech_report": ("Skywork: A More Open Bilingual Foundation Model", 25),
    "Yuan2.0_paper": ("YUAN 2.0: A Large Language Model with Localized Filtering-based Attention", 15),
}
GOLDEN = {
    "LLaMA": [
        "a smaller one trained longer will ultimately be cheaper at inference. For instance, although Hoffmann et al.",
        "it is possible to train state-of-the-art models using publicly available datasets exclusively",
        "Overall, our entire training dataset contains roughly 1.4T tokens after tokenization.",
        "E = mc^2",
    ],
    "Kimi_k1.5": ["the learning rate decays from 2 × 10^-5 to 2 × 10^-6, before it re-warmups to 1 × 10^-5"],
    "Skywork_13b_tech_report": [
        "far more efficient to train the model on in-domain data of that task (Hernandez et al., 2021; Chung et al., "
        "2022), as compared to general-purpose data (web texts).",
    ],
    "Yuan2.0_paper": ["Table 6 presents the performance predicted with Eq (4)"],
    "DeepSeek_R1": ["The findings reveal that RL empowers DeepSeek-R1-Zero to attain robust reasoning capabilities"],
    "Qwen3_Technical_Report": ["with a total of 36 trillion tokens", "## A Appendix"],
}


@pytest.mark.parametrize("name", REPORTS)
def test_shared_reports(shared_data: Path, name: str) -> None:
    file = shared_data / "pdfs" / f"{name}.pdf"
    if not file.is_file():
        pytest.skip(f"no {name}.pdf in the shared data")
    extracted = extract(file, Options())
    text = to_text(extracted.document)
    title, headings = REPORTS[name]
    assert extracted.document.title == title
    assert re.match(r"# .*\n\n## abstract\n", text, re.I)
    assert len(re.findall(r"^##+ ", text, re.M)) >= headings
    numbers = [json.loads(f"[{n.replace('.', ',')}]") for n in re.findall(r"^##+ (\d+(?:\.\d+)*)[. ]", text, re.M)]
    assert numbers == sorted(numbers), "a section stands before its predecessor"
    chapters = [number[0] for number in numbers if len(number) == 1]
    assert chapters == list(range(1, len(chapters) + 1))
    assert "(cid:" not in text
    assert "\ufffd" not in text
    assert not re.search("[\ufb00-\ufb06]", text)
    assert not re.search(r"[a-z]- [a-z]{3}", re.sub(r"\w+- (and|or|to)\b|intra- and", "", text))
    assert not re.search(r"arXiv:\d{4}", text)
    assert not re.search(r"^\d+$", text, re.M)
    for excerpt in GOLDEN[name]:
        assert excerpt in text
