from smtpd.net.stream cimport Stream, StreamOwner
from smtpd.proto.client.events cimport ClientEvent
from smtpd.proto.client.session cimport ClientSession
from smtpd.proto.client.transmission cimport Transmission, begin_transmission
from smtpd.transports.relay.delivery cimport Delivery
from smtpd.transports.relay.health cimport HopHealth
from smtpd.transports.relay.pool cimport Pool
from smtpd.spool.item cimport Body

cimport cython


cdef int _CLOSED


cdef class Link(StreamOwner):
    cdef public Pool _pool
    cdef public HopHealth health
    cdef public str relay
    cdef public ClientSession session
    cdef public bint is_ready
    cdef public bint is_probe
    cdef public bint is_quitting
    cdef public bint is_blameless
    cdef public bint was_idle
    cdef public bint is_stalled
    cdef public Py_ssize_t mails
    cdef public double began_at
    cdef public double idle_since
    cdef public double deadline
    cdef public Py_ssize_t _replies_due
    cdef public Py_ssize_t _blocked_bytes
    cdef public Stream _stream
    cdef public object _transcript
    cdef public dict deliveries
    cdef public bint _is_closing
    cdef public bint _is_handling
    cdef public int _file_fd
    cdef public Py_ssize_t _file_left
    cdef public bint _is_reading
    cdef public object _connecting

    @cython.locals(body=Body, transmission=Transmission, now=double, indexes=list)
    cpdef send(self, Delivery delivery)
    cpdef quit(self)
    cpdef break_off(self, str dsn, str text)
    cpdef check_deadline(self, double now)
    @cython.locals(delivery=Delivery)
    cpdef bint is_overdue(self, double since) except -1
    @cython.locals(session=ClientSession)
    cpdef Py_ssize_t on_data(self, bytearray buffer, Py_ssize_t start, Py_ssize_t end) except -1
    cpdef on_end(self)
    cpdef on_lost(self)
    cpdef on_drained(self)
    cpdef on_closed(self)
    cpdef _lose(self, str text)
    cpdef look_for_transcript(self, bint is_begun)
    @cython.locals(session=ClientSession, event=ClientEvent, has_moved=bint)
    cpdef _go_on(self)
    @cython.locals(stream=Stream, output=bytes)
    cpdef bint _send_output(self) except -1
    cpdef _handle(self, ClientEvent event)
    @cython.locals(delivery=Delivery)
    cpdef _finish(self, Transmission transmission)
    cpdef _on_session_closed(self, reason)
    cpdef _close(self, bint is_clean)
    @cython.locals(pool=Pool, stream=Stream, kind=str)
    cpdef _set_deadline(self)
    cpdef _start_tls(self)
    cpdef _note_broken_tls(self)
    cpdef _close_file(self)
    cpdef _release_file(self)
