from smtpd.mail.verdict cimport Verdict

cimport cython


cdef Verdict _RELAY_DENIED, _UNTRUSTED_ROUTING, _NO_ROUTE, _SPOOL_FULL, _GO_ON


cdef class RelayChecks:
    cdef bint _takes_all
    cdef frozenset _domains
    cdef frozenset _parents
    cdef bint _allows_untrusted_routing
    cdef object _has_route
    cdef object _is_full
    cdef dict _known

    @cython.locals(domain=str, verdict=Verdict, path=bytes)
    cpdef Verdict at_rcpt(self, session, recipient)

    cpdef Verdict at_mail(self, session)
    cpdef Verdict _judge_domain(self, str domain)


@cython.locals(at=Py_ssize_t, i=Py_ssize_t, octet=cython.uchar)
cpdef bint _may_route(bytes path) except -1
