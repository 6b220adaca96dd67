cimport cython


cdef class Client:
    cdef readonly str address
    cdef public bytes helo
    cdef readonly bint is_trusted
    cdef readonly str listener
    cdef public str name
    cdef readonly int port
    cdef public str protocol
    cdef readonly str session_id
    cdef public object tls


cdef class Question:
    cdef object _memories
    cdef object _place
    cdef readonly Client client
    cdef readonly object content
    cdef readonly object parameters
    cdef readonly str queue_id
    cdef readonly object recipient
    cdef readonly tuple recipients
    cdef readonly bytes reverse_path
    cdef readonly str stage


@cython.locals(question=Question)
cpdef Question make_question(
    str stage,
    Client client,
    bytes reverse_path,
    parameters,
    recipient,
    tuple recipients,
    str queue_id,
    content,
    memories,
    place,
)
