"""Section of the check `auth` of [[policy.check]]."""

from typing import Annotated

from smtpd.settings.key import Key
from smtpd.settings.section import Section


class AuthSettings(Section, frozen=True, kw_only=True):
    """SPF, DKIM, ARC and DMARC, noted in one Authentication-Results field (the extra `auth`)."""

    authserv_id: Annotated[
        str,
        Key(
            "Name of ours in Authentication-Results; fields of others with it are removed", kind="hostname", empty="the host name"
        ),
    ] = ""
    spf: Annotated[str, Key("SPF of the sender, or of HELO for the null sender", choices=("note", "reject", "off"))] = "note"
    dkim: Annotated[bool, Key("Verify DKIM signatures")] = True
    arc: Annotated[bool, Key("Verify the ARC chain")] = False
    dmarc: Annotated[
        str, Key("DMARC: only noted, or a mail refused where its domain asks for that", choices=("note", "reject", "off"))
    ] = "note"
    quarantine: Annotated[
        str, Key("A mail that its domain's DMARC policy wants in quarantine: only noted, or held", choices=("note", "hold"))
    ] = "note"
    size_limit: Annotated[int, Key("Largest mail whose signatures are verified", kind="size", least=1024, most=1 << 30)] = (
        10 * 1024 * 1024
    )
    signatures: Annotated[int, Key("Signatures of one mail that are verified, from the top", least=1, most=50)] = 5
    key_bits: Annotated[int, Key("Smallest RSA key that counts", least=512, most=8192)] = 1024
    processes: Annotated[int, Key("Processes of each worker that verify signatures", least=1, most=64)] = 1
