"""data_builders/pdf/reading.py: every kind of damaged, hostile or useless file is skipped with its reason."""

import zlib
from pathlib import Path

import pytest

pymupdf = pytest.importorskip("pymupdf")

from data_builders.pdf.document import Options  # noqa: E402
from data_builders.pdf.reading import Limits, look, read_file, read_here  # noqa: E402
from tests.data_builders.pdfs import own_text, simple  # noqa: E402


def assemble(objects: dict[int, bytes]) -> bytes:
    """A PDF of these objects; number 1 is the catalogue."""
    content, offsets = b"%PDF-1.5\n", {}
    for number, body in objects.items():
        offsets[number] = len(content)
        content += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    content += b"".join(b"%010d 00000 n \n" % offsets[number] for number in sorted(objects))
    return content + b"trailer <</Size %d /Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


def stream(data: bytes, extra: bytes = b"") -> bytes:
    return b"<</Length %d %s>>\nstream\n" % (len(data), extra) + data + b"\nendstream"


FONT = b"<</Type /Font /Subtype /Type1 /BaseFont /Helvetica>>"


def page_with(content: bytes, more: dict[int, bytes] | None = None, resources: bytes = b"") -> bytes:
    return assemble(
        {
            1: b"<</Type /Catalog /Pages 2 0 R>>",
            2: b"<</Type /Pages /Kids [3 0 R] /Count 1>>",
            3: b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
            b"/Resources <</Font <</F 5 0 R>> %s>>>>" % resources,
            4: content,
            5: FONT,
            **(more or {}),
        }
    )


def endless() -> bytes:
    """Forms that draw the next ten times each, twelve deep: a million million texts from two kilobytes."""
    forms = {}
    for level in range(12):
        inner = b"/X Do " * 10 if level < 11 else b"BT /F 9 Tf (text) Tj ET"
        resources = b"/Resources <</Font <</F 5 0 R>> /XObject <</X %d 0 R>>>>" % min(7 + level, 17)
        forms[6 + level] = stream(inner, b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] " + resources)
    return page_with(stream(b"/X Do"), forms, b"/XObject <</X 6 0 R>>")


def greedy() -> bytes:
    """Text that is compressed twice: a few kilobytes become gigabytes."""
    text = b"BT /F 9 Tf 1 0 0 1 9 9 Tm " + b"(%s) Tj\n" % (b"abcdefgh " * 50) * 400_000 + b" ET"
    twice = zlib.compress(zlib.compress(text, 9), 9)
    assert len(twice) < 50_000
    return page_with(stream(twice, b"/Filter [/FlateDecode /FlateDecode]"))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return simple(tmp_path / "good.pdf")


def reason(file: Path, content: bytes | None = None, **limits: int) -> str:
    if content is not None:
        file.write_bytes(content)
    return look(file) or read_here(file, Options(), Limits(**limits)).reason  # pyright: ignore[reportArgumentType]


def test_a_sound_file_is_read(good: Path) -> None:
    report = read_file(good, Options(), Limits())
    assert (report.reason, report.pages, report.title) == ("", 1, "A Small Report")
    assert [section.heading for section in report.sections] == [
        "Abstract",
        "1 Part one of study 0",
        "2 Part two of study 0",
    ]


def test_what_is_no_pdf(tmp_path: Path, good: Path) -> None:
    file = tmp_path / "x.pdf"
    assert reason(file, b"") == "empty file"
    assert reason(file, bytes(range(256)) * 50) == "not a PDF"
    assert reason(file, b"<!DOCTYPE html><html><body>Not found</body></html>") == "an HTML page, not a PDF"
    assert reason(file, good.read_bytes()[:-900]) == "truncated: the end of the file is missing"
    assert look(tmp_path / "missing.pdf").startswith("cannot be read")
    assert look(tmp_path).startswith("cannot be read")


def test_damage_within(tmp_path: Path, good: Path) -> None:
    """Bytes overwritten in the middle: text or a reason, never an exception."""
    content = good.read_bytes()
    for start in range(20, len(content) - 200, len(content) // 12):
        broken = content[:start] + b"\x00\xff" * 50 + content[start + 100 :]
        assert isinstance(reason(tmp_path / "x.pdf", broken), str)
    assert reason(tmp_path / "x.pdf", b"%PDF-1.7\n" + b"rubbish " * 200 + b"\n%%EOF").startswith(
        ("broken", "no pages")
    )


def test_encrypted(tmp_path: Path) -> None:
    for owner_only in (False, True):
        document = pymupdf.open(simple(tmp_path / "plain.pdf"))
        file = tmp_path / f"locked_{owner_only}.pdf"
        user = "" if owner_only else "secret"
        document.save(file, encryption=pymupdf.PDF_ENCRYPT_AES_256, owner_pw="owner", user_pw=user)
        assert reason(file) == ("" if owner_only else "encrypted: a password is needed")


def test_pages_that_are_pictures(tmp_path: Path, good: Path) -> None:
    scanned = pymupdf.open()
    picture = pymupdf.open(good)[0].get_pixmap(dpi=40)
    scanned.new_page().insert_image((0, 0, 595, 842), pixmap=picture)
    scanned.save(tmp_path / "scan.pdf")
    assert reason(tmp_path / "scan.pdf").startswith("no text")


def test_no_running_text(tmp_path: Path) -> None:
    document = pymupdf.open()
    page = document.new_page()
    for row in range(30):
        for column in range(5):
            page.insert_text((72 + 90 * column, 72 + 20 * row), f"{row * column}.{row}")
    document.save(tmp_path / "numbers.pdf")
    assert reason(tmp_path / "numbers.pdf") == "no running text"


def test_too_many_pages(tmp_path: Path) -> None:
    document = pymupdf.open()
    for _ in range(2000):
        document.new_page()
    document.save(tmp_path / "long.pdf")
    assert reason(tmp_path / "long.pdf", pages=1000) == "2,000 pages, more than 1,000"


def test_a_file_that_hangs_the_parser(tmp_path: Path) -> None:
    file = tmp_path / "endless.pdf"
    file.write_bytes(endless())
    report = read_file(file, Options(), Limits(seconds=12, megabytes=2000))
    assert report.reason == "not read within 12 seconds"


def test_a_file_that_takes_gigabytes(tmp_path: Path) -> None:
    file = tmp_path / "greedy.pdf"
    file.write_bytes(greedy())
    report = read_file(file, Options(), Limits(seconds=300, megabytes=800))
    assert report.reason == "needs more than 800 MB of memory" or report.reason.startswith("the reader stopped")


def test_reading_is_the_same_every_time(good: Path) -> None:
    first, second = (read_here(good, Options(), Limits()) for _ in range(2))
    assert first == second
    assert own_text(0) in first.sections[0].paragraphs[0]
