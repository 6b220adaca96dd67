"""The process that verifies signatures: orders come on its standard input, verifications go to its standard output.

Both are msgpack behind their length in four octets. It ends when its input ends, so never outlives its worker. A mail that breaks
it ends it, and costs no other mail more than a new process. `python -m smtpd.policy.auth.verifier`.
"""

from __future__ import annotations

import sys
from typing import BinaryIO

import msgspec

from smtpd.policy.auth.signatures import Order, verify

LENGTH_BYTES = 4


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer orders until there are no more."""
    decoder = msgspec.msgpack.Decoder(Order)
    encoder = msgspec.msgpack.Encoder()
    while True:
        head = source.read(LENGTH_BYTES)
        if len(head) < LENGTH_BYTES:
            return
        answer = encoder.encode(verify(decoder.decode(source.read(int.from_bytes(head)))))
        target.write(len(answer).to_bytes(LENGTH_BYTES) + answer)
        target.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
