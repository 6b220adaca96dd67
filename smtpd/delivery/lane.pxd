from smtpd.delivery.attempt cimport Attempt
from smtpd.delivery.destination cimport Destination
from smtpd.metrics._cells cimport Cells


cdef class Tally:
    cdef public Py_ssize_t count
    cdef public Py_ssize_t size_bytes
    cdef public dict _by_time

    cpdef add(self, double received_at_s, Py_ssize_t size_bytes)
    cpdef remove(self, double received_at_s, Py_ssize_t size_bytes)
    cpdef figures(self, double now_s)
    cpdef double oldest_age_s(self, double now_s) except? -1


cdef class Lane:
    cdef public object number
    cdef public str name
    cdef public object transport
    cdef public str transport_name
    cdef public bint _is_per_domain
    cdef public bint is_suspended
    cdef public dict active
    cdef public Py_ssize_t _active_bytes
    cdef public Tally untried
    cdef public Tally deferred
    cdef public Tally held
    cdef public dict destinations
    cdef public Cells _cells
    cdef public dict _attempts
    cdef public Py_ssize_t _queue_s
    cdef public Py_ssize_t _connect_s
    cdef public Py_ssize_t _transmit_s
    cdef public Py_ssize_t _total_s
    cdef public object _connections
    cdef public object _unconfirmed
    cdef public object _unannounced_8bit
    cdef public object _published
    cdef public list _gauges

    cpdef Destination destination_for(self, str domain, double now_s)
    cpdef forget_idle(self)
    cpdef enter(self, Attempt attempt)
    cpdef leave(self, Attempt attempt)
    cpdef count(self, list outcomes, double queue_s, double connect_s, double transmit_s, double total_s)
