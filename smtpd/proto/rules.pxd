from smtpd.mail.reply cimport Reply


cdef class NoChecks:
    pass


cdef class Rules:
    cdef readonly object footer
    cdef readonly bytes hostname
    cdef readonly str listener
    cdef readonly object checks
    cdef readonly bint has_checks
    cdef readonly bint is_lmtp
    cdef readonly bint is_bare_newline_refused
    cdef readonly object postmaster
    cdef readonly bytes greeting
    cdef readonly Py_ssize_t size_limit
    cdef readonly Py_ssize_t line_limit
    cdef readonly Py_ssize_t command_limit
    cdef readonly Py_ssize_t header_limit
    cdef readonly Py_ssize_t recipient_limit
    cdef readonly Py_ssize_t mail_limit
    cdef readonly Py_ssize_t hop_limit
    cdef readonly Py_ssize_t soft_errors
    cdef readonly Py_ssize_t hard_errors
    cdef readonly Py_ssize_t junk_limit
    cdef readonly list refusals
    cdef readonly bint offers_size
    cdef readonly bint offers_8bitmime
    cdef readonly bint offers_smtputf8
    cdef readonly bint offers_chunking
    cdef readonly bint offers_dsn
    cdef readonly Reply helo_reply
    cdef readonly Reply ehlo_reply
