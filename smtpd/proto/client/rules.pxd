cdef class ClientRules:
    cdef public bytes hello_name
    cdef public bint is_lmtp
    cdef public int tls
    cdef public bint uses_chunking
    cdef public bint uses_esmtp
    cdef public bint uses_pipelining
    cdef public bint believes_early
