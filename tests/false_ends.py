"""What some server has taken for the end of DATA, and ours must not (RFC 5321 4.1.1.4: only CRLF.CRLF)."""

# Every end of data that some server has taken for one (CVE-2023-51764/5/6 and later) but the right one: name, octets after
# "text", and what is stored for them.
FALSE_ENDS = {
    "LF.LF": (b"\n.\n", b"\r\n.\r\n"),
    "LF.CRLF": (b"\n.\r\n", b"\r\n.\r\n"),
    "LF.CR": (b"\n.\r", b"\r\n. "),
    "CRLF.LF": (b"\r\n.\n", b"\r\n\r\n"),
    "CRLF.CR": (b"\r\n.\r", b"\r\n "),
    "CRLF.CRCRLF": (b"\r\n.\r\r\n", b"\r\n \r\n"),
    "CR.CR": (b"\r.\r", b" . "),
    "CR.LF": (b"\r.\n", b" .\r\n"),
    "CR.CRLF": (b"\r.\r\n", b" .\r\n"),
    "CRLF NUL.CRLF": (b"\r\n\0.\r\n", b"\r\n\0.\r\n"),
    "CRLF.NUL CRLF": (b"\r\n.\0\r\n", b"\r\n\0\r\n"),
    "CRLF.CR NUL LF": (b"\r\n.\r\0\n", b"\r\n \0\r\n"),
    "CRLF blank.CRLF": (b"\r\n .\r\n", b"\r\n .\r\n"),
    "CRLF.blank CRLF": (b"\r\n. \r\n", b"\r\n \r\n"),
    "CRLF..CRLF": (b"\r\n..\r\n", b"\r\n.\r\n"),
    "CR CR LF.LF": (b"\r\r\n.\n", b" \r\n\r\n"),
    "LF CR.CR LF": (b"\n\r.\r\n", b"\r\n .\r\n"),
    "LF LF.CRLF": (b"\n\n.\r\n", b"\r\n\r\n.\r\n"),
    "8-bit dot": (b"\r\n\xae\r\n", b"\r\n\xae\r\n"),
}
