from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.load.addresses import parse_addresses
from smtpd.load.maker import MailMaker, MailSpec
from smtpd.load.messages import Filler, head_template, normal_content, read_messages
from smtpd.load.sizes import parse_sizes


def spec_of(**fields: object) -> MailSpec:
    usual: dict[str, object] = {
        "senders": parse_addresses(["a@example.org"]),
        "recipients": parse_addresses(["b@example.org"]),
        "sizes": parse_sizes("100"),
        "head": head_template("mail {n}", ["X-To: {recipient} and {recipients}"]),
        "hello": b"client.example",
        "run": b"r1",
    }
    return MailSpec(**{**usual, **fields})  # type: ignore[arg-type]


# --- sizes and text ---------------------------------------------------------------------------------------------------


@given(st.integers(2, 20_000))
def test_text_has_exactly_the_size_and_clean_lines(size: int) -> None:
    text = Filler().make(size)
    assert len(text) == size
    assert text.endswith(b"\r\n")
    assert normal_content(text) == text  # no bare CR or LF
    assert max(map(len, text.split(b"\r\n"))) <= 77


def test_text_of_different_sizes_from_one_filler() -> None:
    filler = Filler()
    assert [len(filler.make(size)) for size in (4096, 1, 0, 1 << 20, 79, 78, 2)] == [4096, 0, 0, 1 << 20, 79, 78, 2]


def test_distributions_have_their_median_and_bounds() -> None:
    random = Random(5)
    lognormal = sorted(parse_sizes("lognormal:30KiB").draw(random) for _ in range(4000))
    assert 28_000 < lognormal[2000] < 33_500
    assert lognormal[400] < 10_000 < 90_000 < lognormal[3600]
    assert max(parse_sizes("lognormal:30KiB:3:64KiB").draw(random) for _ in range(1000)) == 65536
    uniform = [parse_sizes("uniform:1KiB-2KiB").draw(random) for _ in range(2000)]
    assert (min(uniform), max(uniform)) >= (1024, 2030)
    assert max(uniform) <= 2048
    mixed = [parse_sizes("mix:75%=10,25%=uniform:100-200").draw(random) for _ in range(4000)]
    assert 2850 < mixed.count(10) < 3150
    assert parse_sizes("4 KiB").fixed == 4096


@pytest.mark.parametrize(
    "text",
    ["", "x", "uniform:2-1", "uniform:5", "lognormal:0", "lognormal:1k:x", "lognormal:9:1:1:1", "mix:1", "mix:0=5", "zipf:3"],
)
def test_what_is_no_distribution_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_sizes(text)


# --- addresses --------------------------------------------------------------------------------------------------------


def test_ranges_numbers_files_and_several_sources(tmp_path: Path) -> None:
    file = tmp_path / "addresses"
    file.write_bytes(b"x@example.org\n\ny@example.org\n")
    addresses = parse_addresses(["u{08-10}@example.org", f"@{file}", "n{n}@example.org"])
    assert [addresses.pick(place) for place in range(9)] == [
        b"u08@example.org", b"x@example.org", b"n0@example.org",
        b"u09@example.org", b"y@example.org", b"n1@example.org",
        b"u10@example.org", b"x@example.org", b"n2@example.org",
    ]  # fmt: skip
    assert addresses.fixed is None
    assert parse_addresses(["a@example.org"]).fixed == b"a@example.org"
    assert parse_addresses([""]).fixed == b""


@pytest.mark.parametrize(
    "text", ["a b@example.org", "a>@example.org", "a\r\nRCPT", "u{5-3}@x.example", "u{1-2}{1-2}@x.example", "@/no/file"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_addresses([text])


# --- mails ------------------------------------------------------------------------------------------------------------


def test_a_generated_mail_has_a_header_of_its_own() -> None:
    mail = MailMaker(spec_of()).make(7)
    head, _, body = (mail.body or b"").partition(b"\r\n\r\n")
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n"))
    assert lines[b"Message-ID"] == b"<7.r1@client.example>"
    assert lines[b"Subject"] == b"mail 7"
    assert lines[b"X-To"] == b"b@example.org and 1"
    assert lines[b"Date"].endswith(b" +0000")
    assert len(body) == 100
    assert mail.envelope.body == ""


def test_recipients_are_counted_as_smtp_source_does_it() -> None:
    paths = [r.path for r in MailMaker(spec_of(least_recipients=3, most_recipients=3)).make(0).envelope.recipients]
    assert paths == [b"1b@example.org", b"2b@example.org", b"3b@example.org"]
    maker = MailMaker(
        spec_of(least_recipients=2, most_recipients=2, recipients=parse_addresses(["r{n}@example.org"]), is_unique=True)
    )
    assert [r.path for n in (0, 1) for r in maker.make(n).envelope.recipients] == [
        b"0r0@example.org", b"1r1@example.org", b"2r2@example.org", b"3r3@example.org",
    ]  # fmt: skip


def test_the_same_seed_makes_the_same_mails() -> None:
    def mails(seed: int) -> list[tuple[bytes, list[bytes], int]]:
        spec = spec_of(
            sizes=parse_sizes("uniform:10-5000"), seed=seed, is_shuffled=True, senders=parse_addresses(["u{1-1000}@example.org"]),
            least_recipients=1, most_recipients=5, recipients=parse_addresses(["u{1-1000}@example.org"]),
        )  # fmt: skip
        maker = MailMaker(spec)
        made = [maker.make(n) for n in range(20)]
        return [(m.envelope.reverse_path, [r.path for r in m.envelope.recipients], m.size_bytes) for m in made]

    assert mails(1) == mails(1)
    assert mails(1) != mails(2)


def test_files_go_as_they_are_or_with_their_places_filled_in(tmp_path: Path) -> None:
    (tmp_path / "b.eml").write_bytes(b"Subject: {n}\n\n.dot\n\xc3\xa9 no end")
    (tmp_path / "a.eml").write_bytes(b"To: {recipient}\r\n\r\n")
    (tmp_path / "other.txt").write_bytes(b"x")
    messages = tuple(read_messages(str(tmp_path)))
    plain, expanding = (MailMaker(spec_of(messages=messages, is_expanding=flag)) for flag in (False, True))
    assert plain.make(1).body == b"Subject: {n}\r\n\r\n.dot\r\n\xc3\xa9 no end\r\n"
    assert plain.make(1).envelope.body == "8BITMIME"
    assert [expanding.make(n).body for n in (2, 3)] == [
        b"To: b@example.org\r\n\r\n",
        b"Subject: 3\r\n\r\n.dot\r\n\xc3\xa9 no end\r\n",
    ]


def test_no_header_gets_a_line_that_is_none() -> None:
    with pytest.raises(ValueError, match="header"):
        head_template("x\r\n\r\nbody", [])
    with pytest.raises(ValueError, match="header"):
        head_template("x", ["no colon"])


def test_a_folder_without_mails_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file \*.eml"):
        read_messages(str(tmp_path))
    with pytest.raises(ValueError, match="No such file"):
        read_messages(str(tmp_path / "none"))
