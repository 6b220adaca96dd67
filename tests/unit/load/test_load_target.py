import pytest

from smtpd.load.target import Target, find_public, find_target


@pytest.mark.parametrize(
    ("text", "shown", "addresses"),
    [
        ("127.0.0.1:2525", "127.0.0.1:2525", (("127.0.0.1", 2525),)),
        ("inet:127.0.0.1", "127.0.0.1:25", (("127.0.0.1", 25),)),
        ("[::1]:2525", "[::1]:2525", (("::1", 2525),)),
        ("[::1]", "[::1]:25", (("::1", 25),)),
        ("unix:/run/lmtp", "unix:/run/lmtp", ("/run/lmtp",)),
    ],
)
def test_targets(text: str, shown: str, addresses: tuple[object, ...]) -> None:
    target = find_target(text)
    assert (target.text, target.addresses) == (shown, addresses)


@pytest.mark.parametrize(
    "text", ["", ":25", "::1:25", "[::1", "[::1]x", "127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:70000", "unix:"]
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        find_target(text)


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("127.0.0.1", False), ("127.9.9.9", False), ("10.1.2.3", False), ("192.168.0.1", False), ("172.16.0.1", False),
        ("169.254.1.1", False), ("::1", False), ("fd00::1", False), ("fe80::1%eth0", False), ("192.0.2.1", False),
        ("2001:db8::1", False), ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True), ("8.8.8.8", True), ("172.32.0.1", True),
        ("2606:4700::1", True), ("100.64.0.1", True), ("224.0.0.1", True),
    ],
)  # fmt: skip
def test_who_is_a_stranger(address: str, is_public: bool) -> None:
    assert bool(find_public(Target("x", "x", ((address, 25),)))) == is_public


def test_one_stranger_among_ours_is_enough() -> None:
    assert find_public(Target("x", "x", (("127.0.0.1", 25), ("9.9.9.9", 25)))) == ["9.9.9.9"]
    assert find_public(Target("x", "x", ("/run/socket",))) == []
