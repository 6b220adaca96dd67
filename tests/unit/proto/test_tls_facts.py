"""What a session's TLS came to, in a Received field."""

from __future__ import annotations

from smtpd.mail.tls_facts import TlsFacts
from smtpd.proto.trace import protocol_name


def test_comments_are_postfixs() -> None:
    facts = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256)
    assert facts.comments == (
        b"(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n\t(No client certificate requested)\r\n\t"
    )
    asked = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256, was_asked=True)
    assert asked.comments.endswith(b")\r\n\t(Client did not present a certificate)\r\n\t")


def test_a_name_in_a_certificate_cannot_bend_the_field() -> None:
    facts = TlsFacts(
        "TLSv1.3",
        "X",
        256,
        256,
        was_asked=True,
        is_verified=True,
        client_subject='a")\r\nSubject: evil (\\',
        client_issuer="ü" * 100,
    )
    assert facts.trust == "Trusted"
    comment = facts.comments.split(b"\r\n\t")[1]
    assert comment.startswith(b'(Client CN "a???r?nSubject: evil ??", Issuer "????')
    assert comment.count(b"(") == comment.count(b")") == 2
    assert all(len(line) < 998 for line in facts.comments.splitlines())


def test_the_protocol_has_an_s() -> None:
    """RFC 3848, RFC 6531 4.3."""
    assert protocol_name(False, True, False, True) == "ESMTPS"
    assert protocol_name(False, True, True, True) == "UTF8SMTPS"
    assert protocol_name(True, True, False, True) == "LMTPS"
