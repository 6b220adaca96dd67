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
    cdef readonly object policy_for
    cdef readonly object on_accepted
    cdef readonly bytes hostname
    cdef readonly object dates
    cdef readonly object files
    cdef readonly set connections
    cdef readonly object left
    cdef readonly double command_timeout
    cdef readonly double data_timeout
    cdef readonly double timer_period_s
