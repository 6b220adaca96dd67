from smtpd.load.recorder cimport Recorder
from smtpd.net.loop cimport Loop
from smtpd.net.stream cimport Stream, StreamOwner
from smtpd.proto.client.events cimport ClientEvent
from smtpd.proto.client.rules cimport ClientRules
from smtpd.proto.client.session cimport ClientSession
from smtpd.proto.client.transmission cimport Transmission

cimport cython


cdef Py_ssize_t _DONE
cdef list _PHASES


cdef class Wiring:
    cdef public Loop loop
    cdef public Recorder recorder
    cdef public ClientRules rules
    cdef public object now
    cdef public str target
    cdef public list addresses
    cdef public Py_ssize_t preferred
    cdef public Py_ssize_t connect_tries
    cdef public double connect_timeout_s
    cdef public double reply_timeout_s
    cdef public object tls_context
    cdef public bint is_tls_implicit
    cdef public str tls_name
    cdef public Py_ssize_t window_bytes
    cdef public bint wants_pipelining
    cdef public bint wants_chunking
    cdef public object opening
    cdef public object introduction
    cdef public object tap


cdef class ConnectionOwner:
    cpdef on_idle(self, Connection connection)
    cpdef on_done(self, Connection connection, Transmission transmission)
    cpdef on_again(self, Connection connection)
    cpdef on_closed(self, Connection connection, reason)


cdef class Connection(StreamOwner):
    cdef ConnectionOwner _owner
    cdef Wiring _wiring
    cdef readonly ClientSession session
    cdef list _marks
    cdef public long number
    cdef public double intended_at
    cdef public double sent_at
    cdef public double deadline
    cdef public Py_ssize_t mails
    cdef public bint has_mail
    cdef public bint is_ready
    cdef Transmission _mail
    cdef bytes _content
    cdef Py_ssize_t _content_given
    cdef Transmission _waiting
    cdef Stream _stream
    cdef object _connecting
    cdef Py_ssize_t _attempt
    cdef double _opened_at
    cdef double _phase_at
    cdef double _tls_at
    cdef Py_ssize_t _buffered
    cdef str _failure
    cdef bint _is_handling
    cdef bint _is_closing

    cpdef open(self)
    cpdef take(self, long number, double intended_at, Transmission transmission)
    cpdef quit(self)
    cpdef break_off(self, str kind, str text)
    cpdef check_deadline(self, double now)
    @cython.locals(wiring=Wiring, session=ClientSession)
    cpdef Py_ssize_t on_data(self, bytearray buffer, Py_ssize_t start, Py_ssize_t end) except -1
    cpdef on_end(self)
    cpdef on_lost(self)
    cpdef on_drained(self)
    cpdef on_closed(self)
    @cython.locals(now=double)
    cpdef _note_sending(self)
    @cython.locals(wiring=Wiring, recorder=Recorder, after_s=double, mark=long, what=long, code=long, phase=Py_ssize_t)
    cpdef _take_marks(self, double at)
    @cython.locals(session=ClientSession, wiring=Wiring, event=ClientEvent, output=bytes)
    cpdef _go_on(self)
    cpdef _handle(self, ClientEvent event)
    cpdef _become_ready(self)
    @cython.locals(session=ClientSession, owner=ConnectionOwner)
    cpdef _finish(self, Transmission transmission)
    @cython.locals(accepted=Py_ssize_t)
    cpdef Py_ssize_t count_recipients(self, Transmission transmission) except -1
    cpdef _fail(self, str kind, str text)
    @cython.locals(owner=ConnectionOwner)
    cpdef _close(self, reason)
