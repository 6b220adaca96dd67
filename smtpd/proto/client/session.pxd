from smtpd._wire cimport BodyEncoder, ReplyReader
from smtpd.proto.client.commands cimport prepare
from smtpd.proto.client.events cimport ClientEvent, make_event
from smtpd.proto.client.extensions cimport Extensions
from smtpd.proto.client.rules cimport ClientRules
from smtpd.proto.client.transmission cimport Transmission
from smtpd.proto.client.verdicts cimport is_too_many, judge


cimport cython


cdef int CONTENT, DATA, END, GREETING, HELLO, HELO, LONE_DOT, MAIL, QUIT, RCPT, RSET, STARTTLS, XCLIENT
cdef int CONTENT_ENDED, CONTENT_GIVEN, CONTENT_VOID
cdef int _DONE, _DSN, _GREETING, _SHUTTING_DOWN, _OUT_OF_SEQUENCE
cdef tuple _TIMEOUT_KINDS


cdef class ClientSession:
    cdef public ClientRules rules
    cdef public str relay
    cdef public list events
    cdef public Extensions extensions
    cdef public bytes introduction
    cdef public bytes peer_name
    cdef public Py_ssize_t mail_count
    cdef public list marks
    cdef public bint is_tls
    cdef public bint is_closed
    cdef public bint is_spent
    cdef public ReplyReader _reader
    cdef public list _output
    cdef public Py_ssize_t _handed_bytes
    cdef public Py_ssize_t _left_bytes
    cdef public list _expected
    cdef public Py_ssize_t _answerable
    cdef public Transmission _current
    cdef public Transmission _next
    cdef public BodyEncoder _encoder
    cdef public bint _is_ready
    cdef public bint _is_pipelining
    cdef public bint _is_chunking
    cdef public bint _is_handshaking
    cdef public bint _is_quitting
    cdef public bint _is_ending

    @cython.locals(reader=ReplyReader, position=Py_ssize_t)
    cpdef Py_ssize_t receive(self, bytearray buffer, Py_ssize_t start, Py_ssize_t end, Py_ssize_t unsent_bytes=*) except -1
    @cython.locals(expected=list, output=list, octets=bytes)
    cpdef bytes take_output(self)
    cpdef ClientEvent next_event(self)
    cpdef str find_timeout_kind(self)
    @cython.locals(current=Transmission)
    cpdef bint takes_mail(self) except -1
    @cython.locals(current=Transmission)
    cpdef Py_ssize_t count_due(self) except? -1
    @cython.locals(commands=bytes)
    cpdef send(self, Transmission transmission)
    cpdef feed(self, bytes chunk, bint is_last)
    cpdef tls_started(self)
    cpdef quit(self)
    cpdef fail(self, Py_ssize_t code, str dsn, str text)
    @cython.locals(what=int, current=Transmission)
    cpdef _take_reply(self, ReplyReader reader, bint has_more)
    cpdef bint _is_early(self, Transmission current, ReplyReader reader) except -1
    cpdef _take_unasked_reply(self, ReplyReader reader)
    cpdef _on_greeting(self, ReplyReader reader)
    cpdef _say_hello(self)
    cpdef _on_hello(self, ReplyReader reader, Py_ssize_t what)
    cpdef _on_starttls(self, ReplyReader reader, bint has_more)
    cpdef _become_ready(self)
    cpdef _refuse(self, reason)
    cpdef _on_mail(self, Transmission current, ReplyReader reader)
    cpdef _on_rcpt(self, Transmission current, ReplyReader reader)
    cpdef _ask_next(self, Transmission current)
    @cython.locals(encoder=BodyEncoder, content=bytes, tail=bytes, body=bytes)
    cpdef _begin_content(self, Transmission transmission)
    cpdef _on_data(self, Transmission current, ReplyReader reader)
    @cython.locals(encoder=BodyEncoder)
    cpdef _give_content(self, Transmission current)
    @cython.locals(end_bytes=Py_ssize_t, octets=bytes)
    cpdef _end_content(self, Transmission transmission)
    cpdef _on_end(self, Transmission current, ReplyReader reader)
    cpdef _finish(self, Transmission current)
    cpdef _on_rset(self, ReplyReader reader)
    cpdef _command(self, bytes octets, Py_ssize_t what)
    cpdef _maybe_quit(self)
    cpdef _reason(self, str text)
    cpdef _break(self, str text)
    cpdef _close(self, reason)
