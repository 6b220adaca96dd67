from smtpd.net.loop cimport Loop
from smtpd.worker.account cimport ListenerAccount


cdef class Service:
    cdef readonly Loop loop
    cdef readonly object limits
    cdef readonly object spool
    cdef readonly bint keeps_mail
    cdef readonly ListenerAccount account
    cdef readonly object rules_for
    cdef readonly object conduct_for
    cdef public object introduce
    cdef readonly object policy_for
    cdef readonly object on_accepted
    cdef readonly bytes hostname
    cdef readonly object dates
    cdef readonly object files
    cdef readonly set connections
    cdef readonly object left
    cdef readonly double command_timeout
    cdef readonly double data_timeout
    cdef readonly double command_deadline
    cdef readonly double mail_deadline  # 0 = none
    cdef readonly double minimum_data_rate
    cdef readonly double timer_period_s
    cdef readonly object tls
    cdef double _stress_timeout
    cdef bint _has_mail_deadline

    cpdef set_stress(self, bint is_stressed)
