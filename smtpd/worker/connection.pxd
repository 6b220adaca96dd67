from smtpd cimport _io
from smtpd.mail.verdict cimport Verdict, accept_as
from smtpd.net.loop cimport Loop, Timer
from smtpd.net.stream cimport Stream, StreamOwner, make_stream
from smtpd._parser cimport BodyDecoder
from smtpd._tally cimport PairCounts, Tally
from smtpd.proto.content cimport make_envelope
from smtpd.proto.events cimport Event
from smtpd.proto.session cimport Session, make_session
from smtpd.proto.trace cimport received_field
from smtpd.proto.transaction cimport Transaction
from smtpd.worker.account cimport ListenerAccount
from smtpd.worker.service cimport Service

cimport cython


cdef int _CHUNK, _BEGIN, _END, _CONTENT
cdef Py_ssize_t _READ_BYTES


cdef class PendingMail:
    cdef public Connection connection
    cdef public str queue_id
    cdef public object envelope
    cdef public object writer
    cdef public bytes message_id
    cdef public Py_ssize_t size_bytes
    cdef public double started_at
    cdef public int token
    cdef public bint is_abandoned
    cdef public bytes trace
    cdef public object drafting
    cdef public str held_for

    cpdef on_committed(self, item, error)


cdef class Connection(StreamOwner):
    cdef readonly Service service
    cdef readonly Session session
    cdef readonly Stream stream
    cdef readonly str client
    cdef public object tap
    cdef PairCounts _counts
    cdef PendingMail _mail
    cdef PendingMail _committing
    cdef bytes _head
    cdef str _ended
    cdef str _mail_id
    cdef object _inspection
    cdef double _asked_at
    cdef int _asked_token
    cdef bint _is_deep
    cdef bint _is_reset
    cdef double _started_at
    cdef double _line_started_at
    cdef double _deadline
    cdef Timer _timer

    cpdef Py_ssize_t on_data(self, bytearray buffer, Py_ssize_t start, Py_ssize_t end) except -1
    cpdef start(self)
    cpdef drain(self)
    cpdef stop(self)

    @cython.locals(session=Session, service=Service, now=double, position=Py_ssize_t, was_paused=int)
    cpdef Py_ssize_t _take(self, bytearray buffer, Py_ssize_t start, Py_ssize_t end) except -1

    cpdef _lose(self)
    cpdef _settle_turn(self)

    @cython.locals(session=Session, service=Service, output=bytes)
    cpdef _flush(self)

    @cython.locals(session=Session, events=list, event=Event, kind=int)
    cpdef _handle_events(self)

    @cython.locals(service=Service, now_s=double, mail=PendingMail, trace=bytes)
    cpdef _begin_body(self, Transaction transaction)

    @cython.locals(mail=PendingMail)
    cpdef _write_body(self, bytes chunk)

    @cython.locals(mail=PendingMail, service=Service, transaction=Transaction)
    cpdef _commit_body(self, int token)

    @cython.locals(service=Service, queue_id=str)
    cpdef _discard_body(self, Transaction transaction, int token)

    @cython.locals(service=Service, seconds=double)
    cpdef finish_mail(self, PendingMail mail, item, error)

    cpdef _resume(self, int token, Verdict verdict)

    @cython.locals(session=Session)
    cpdef _go_on(self, int token, Verdict verdict)
