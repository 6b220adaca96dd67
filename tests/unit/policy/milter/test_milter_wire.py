"""The milter codec against kilter-protocol's, the reader against any cut of the stream, and answers that no filter sends."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kilter.protocol import messages as km
from kilter.protocol.buffer import SimpleBuffer

from smtpd.policy.milter import wire
from smtpd.policy.milter.negotiation import ALL_ACTIONS, ALL_STEPS, OFFER, Agreement
from smtpd.policy.milter.wire import Packet, PacketReader, WireError

TEXT = st.binary(max_size=60).map(lambda octets: octets.replace(b"\0", b"0"))
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=30)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def decoded(octets: bytes) -> km.Message:
    buffer = SimpleBuffer(len(octets) + 1)
    buffer[:] = octets
    message, size = km.Message.unpack(buffer)
    assert size == len(octets)
    message.freeze()
    return message


def packed(message: km.Message) -> Packet:
    buffer = SimpleBuffer(1 << 17)
    message.pack(buffer)
    reader = PacketReader()
    reader.feed(buffer[:].tobytes())
    packet = reader.next_packet()
    assert packet is not None
    assert reader.is_empty
    wire.check_answer(packet)
    return packet


@given(ADDRESSES, st.integers(0, 65535))
def test_connect_is_what_the_library_reads(address, port):
    told = decoded(wire.make_connect(b"client.example.org", str(address), port))
    assert told == km.Connect("client.example.org", ip_address(str(address)), port)


def test_client_of_a_unix_socket():
    told = decoded(wire.make_connect(b"localhost", "", 0))
    assert isinstance(told, km.Connect)
    assert told.hostname == "localhost"
    assert str(told.address) == "local"


@given(TEXT, st.lists(TEXT, max_size=4))
def test_paths_are_what_the_library_reads(path, arguments):
    assert decoded(wire.make_strings(wire.MAIL, path, *arguments)) == km.EnvelopeFrom(path, arguments)
    assert decoded(wire.make_strings(wire.RCPT, path, *arguments)) == km.EnvelopeRecipient(path, arguments)


@given(ASCII, TEXT)
def test_header_is_what_the_library_reads(name, value):
    assert decoded(wire.make_strings(wire.HEADER, name.encode(), value)) == km.Header(name, value)


@given(st.binary(max_size=wire.CHUNK_BYTES))
def test_body_is_what_the_library_reads(piece):
    assert decoded(wire.make_packet(wire.BODY, piece)) == km.Body(piece)


@given(st.dictionaries(ASCII, ASCII, min_size=1, max_size=6))
def test_macros_are_what_the_library_reads(macros):
    told = decoded(wire.make_macros(wire.MAIL, [(name.encode(), value.encode()) for name, value in macros.items()]))
    assert told == km.Macro(wire.MAIL[0], macros)


def test_offer_is_what_the_library_reads():
    assert decoded(wire.make_offer(OFFER)) == km.Negotiate(6, km.ActionFlags(ALL_ACTIONS), km.ProtocolFlags(ALL_STEPS))


MACRO_LISTS = st.dictionaries(
    st.sampled_from(list(km.Stage)), st.lists(ASCII.filter(lambda name: "," not in name), max_size=3), max_size=7
)


@given(st.integers(2, 6), st.integers(0, ALL_ACTIONS), st.integers(0, ALL_STEPS), MACRO_LISTS)
def test_answer_to_the_offer_is_read_as_the_library_wrote_it(version, actions, steps, macros):
    offer = wire.parse_offer(packed(km.Negotiate(version, km.ActionFlags(actions), km.ProtocolFlags(steps), macros)))
    assert (offer.version, offer.actions, offer.steps) == (version, actions, steps)
    assert offer.macros == {stage.value: [name.encode() for name in names] for stage, names in macros.items()}


@given(st.integers(0, 2**32 - 1), ASCII, TEXT)
def test_header_changes_are_read_as_the_library_wrote_them(position, name, value):
    encoded = name.encode()
    assert wire.parse_header_change(packed(km.AddHeader(name, value))) == (0, encoded, value)
    assert wire.parse_header_change(packed(km.InsertHeader(position, name, value))) == (position, encoded, value)
    assert wire.parse_header_change(packed(km.ChangeHeader(position, name, value))) == (position, encoded, value)


@given(ASCII, ASCII)
def test_addresses_are_read_as_the_library_wrote_them(address, arguments):
    encoded = address.encode(), arguments.encode()
    assert wire.parse_path(packed(km.ChangeSender(address, arguments))) == encoded
    assert wire.parse_path(packed(km.ChangeSender(address))) == (encoded[0], b"")
    assert wire.parse_path(packed(km.AddRecipient(address))) == (encoded[0], b"")
    assert wire.parse_path(packed(km.AddRecipientPar(address, arguments))) == encoded
    assert wire.parse_path(packed(km.RemoveRecipient(address))) == (encoded[0], b"")
    assert wire.parse_text(packed(km.Quarantine(address))) == encoded[0]


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_any_cut_of_the_stream_gives_the_same_packets(payloads, data):
    octets = b"".join(wire.make_packet(wire.BODY, payload) for payload in payloads)
    reader = PacketReader()
    read = []
    while octets:
        size = data.draw(st.integers(1, len(octets)))
        reader.feed(octets[:size])
        read += [packet.payload for packet in reader.packets()]
        octets = octets[size:]
    assert read == payloads
    assert reader.is_empty


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(octets):
    reader = PacketReader()
    reader.feed(octets)
    try:
        for packet in reader.packets():
            wire.check_answer(packet)
            for parse in (wire.parse_offer, wire.parse_header_change, wire.parse_path, wire.parse_text):
                try:
                    parse(packet)
                except WireError:
                    continue
    except WireError:
        pass


@pytest.mark.parametrize("length", [0, wire.ANSWER_BYTES + 1, 2**32 - 1])
def test_length_that_cannot_be(length):
    reader = PacketReader()
    reader.feed(struct.pack("!I", length) + b"c")
    with pytest.raises(WireError, match="a packet of"):
        reader.next_packet()


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (Packet(b"?", b""), "unknown answer"),
        (Packet(b"O", b""), None),
        (Packet(b"c", b"x"), "has none"),
    ],
)
def test_letters_of_answers(packet, text):
    if text is None:
        wire.check_answer(packet)
    else:
        with pytest.raises(WireError, match=text):
            wire.check_answer(packet)


@pytest.mark.parametrize(
    ("parse", "packet"),
    [
        (wire.parse_offer, Packet(b"O", b"\0\0\0\6")),
        (wire.parse_offer, Packet(b"c", b"")),
        (wire.parse_offer, Packet(b"O", bytes(12) + b"\0\0\0\1no end")),
        (wire.parse_header_change, Packet(b"h", b"name\0value")),
        (wire.parse_header_change, Packet(b"h", b"na me\0value\0")),
        (wire.parse_header_change, Packet(b"h", b"na:me\0value\0")),
        (wire.parse_header_change, Packet(b"h", b"\0value\0")),
        (wire.parse_header_change, Packet(b"m", b"\0\0")),
        (wire.parse_header_change, Packet(b"h", b"a\0b\0c\0")),
        (wire.parse_header_change, Packet(b"h", b"a\0" + b"x" * (wire.ITEM_BYTES + 1) + b"\0")),
        (wire.parse_path, Packet(b"+", b"")),
        (wire.parse_path, Packet(b"+", b"a\0b\0")),
        (wire.parse_text, Packet(b"q", b"a")),
    ],
)
def test_payloads_that_cannot_be(parse, packet):
    with pytest.raises(WireError):
        parse(packet)


@pytest.mark.parametrize("version", [0, 1, 7])
def test_version_that_nobody_offered(version):
    with pytest.raises(WireError, match="version"):
        Agreement(wire.Offer(version, 0, 0, {}))


def test_actions_that_nobody_offered():
    with pytest.raises(WireError, match="not offered"):
        Agreement(wire.Offer(6, 0x200, 0, {}))


def test_nul_in_what_a_client_said_ends_nothing():
    assert decoded(wire.make_strings(wire.HELO, b"a\0b.example.org")) == km.Helo("ab.example.org")
