from smtpd.mail.verdict cimport Verdict
from smtpd.metrics._cells cimport Cells

cimport cython


cdef class Entry:
    cdef readonly object check
    cdef readonly Verdict failure
    cdef readonly bint is_async
    cdef readonly bint is_conditional
    cdef readonly bint is_dry_run
    cdef readonly bint is_independent
    cdef readonly str name
    cdef readonly int number
    cdef readonly double timeout_s
    cdef public long last_told_s
    cdef public long untold
    cdef list _count
    cdef list _seconds
    cdef Cells _cells
    cdef object _excepted
    cdef frozenset _listeners
    cdef object _networks

    cpdef count(self, int result, double seconds)


cdef class Plan:
    cdef readonly bint is_empty
    cdef readonly bint keeps_mail
    cdef readonly object overrides
    cdef readonly list stages
