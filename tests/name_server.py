"""A small DNS server on loopback for tests: answers UDP questions from a table, and can fail in the ways that servers do."""

import contextlib
import socket
import threading

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameServer:
    """`records` maps (name, kind) to (ttl, [texts]); CNAMEs are followed. A name in `rcodes` gets that rcode, one in `silent` no
    answer, and one that has no record at all NXDOMAIN. `asked` counts questions."""

    def __init__(self):
        self.records = {}
        self.rcodes = {}
        self.silent = set()
        self.asked = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, name, kind, *texts, ttl=600):
        self.records[name, kind] = (ttl, list(texts))

    def close(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()

    def _run(self):
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                return
            answer = self._answer(dns.message.from_wire(data))
            if answer is not None:
                self._socket.sendto(answer.to_wire(), peer)

    def _answer(self, question):
        asked = question.question[0]
        name, kind = asked.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(asked.rdtype)
        self.asked.append((name, kind))
        if name in self.silent or (name, kind) in self.silent:
            return None
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        if name in self.rcodes:
            answer.set_rcode(self.rcodes[name])
            return answer
        for _ in range(8):
            if (name, "CNAME") not in self.records:
                break
            ttl, texts = self.records[name, "CNAME"]
            answer.answer.append(dns.rrset.from_text(name + ".", ttl, "IN", "CNAME", *texts))
            name = texts[0].rstrip(".")
        if (name, kind) in self.records:
            ttl, texts = self.records[name, kind]
            answer.answer.append(dns.rrset.from_text(name + ".", ttl, "IN", kind, *texts))
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer
