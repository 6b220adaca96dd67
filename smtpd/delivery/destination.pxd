from smtpd.delivery.attempt cimport Attempt
from smtpd.delivery.lane cimport Lane


cdef class Destination:
    cdef public Lane lane
    cdef public str key
    cdef public object waiting
    cdef public Py_ssize_t in_flight
    cdef public Py_ssize_t body_bytes
    cdef public bint is_listed
    cdef public Py_ssize_t finished
    cdef public double opened_at_s

    cpdef double drain_time_s(self, double now_s) except? -1


cdef class Share:
    cdef public Attempt attempt
    cdef public Destination destination
    cdef public list indexes
    cdef public Py_ssize_t body_bytes
    cdef public bint is_started
    cdef public bint is_waiting
    cdef public bint is_done
    cdef public double started_at_s
