from smtpd.load.connection cimport Connection, ConnectionOwner, Wiring
from smtpd.load.offer cimport Offer
from smtpd.load.recorder cimport Recorder
from smtpd.net.loop cimport Timer
from smtpd.proto.client.transmission cimport Transmission

cimport cython


cdef Py_ssize_t _SCHEDULE_LAG


cdef class Crew(ConnectionOwner):
    cdef Wiring _wiring
    cdef Recorder _recorder
    cdef Offer _offer
    cdef object _maker
    cdef object _connect
    cdef object _on_over
    cdef Py_ssize_t _sessions
    cdef long _share
    cdef long _shares
    cdef public Py_ssize_t mails_per_connection
    cdef public double ends_at
    cdef public double drain_s
    cdef public str gave_up
    cdef public bint is_over
    cdef public bint is_quitting
    cdef double _pause_s
    cdef double _random_pause_s
    cdef object _random
    cdef Py_ssize_t _free
    cdef double _free_since
    cdef list _idle
    cdef set _connections
    cdef list _again
    cdef bint _is_filling
    cdef bint _is_stopping
    cdef Timer _timer
    cdef Py_ssize_t _failures
    cdef double _ready_at
    cdef double _started_at
    cdef double _drain_until

    @cython.locals(offer=Offer, now=double, intended_at=double, number=long)
    cpdef _fill(self)
    @cython.locals(connection=Connection, transmission=Transmission)
    cpdef _begin(self, long number, double intended_at)
    cpdef _wait(self)
    cpdef _free_one(self)
    @cython.locals(pause_s=double)
    cpdef _free_later(self)
    cpdef on_idle(self, Connection connection)
    @cython.locals(at=double, accepted=Py_ssize_t, failed=Py_ssize_t, sent_at=double)
    cpdef on_done(self, Connection connection, Transmission transmission)
    cpdef on_again(self, Connection connection)
    cpdef on_closed(self, Connection connection, reason)
