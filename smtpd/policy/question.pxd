cdef class TlsFacts:
    cdef readonly str version
    cdef readonly str cipher
    cdef readonly str client_subject


cdef class Client:
    cdef readonly str address
    cdef public bytes helo
    cdef readonly bint is_trusted
    cdef readonly str listener
    cdef readonly str name
    cdef readonly int port
    cdef public str protocol
    cdef readonly str session_id
    cdef public TlsFacts tls


cdef class Question:
    cdef object _memory_of
    cdef readonly Client client
    cdef readonly object content
    cdef readonly object parameters
    cdef readonly str queue_id
    cdef readonly object recipient
    cdef readonly tuple recipients
    cdef readonly bytes reverse_path
    cdef readonly str stage
