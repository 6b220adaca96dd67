from smtpd._parser cimport BodyDecoder
from smtpd.mail.reply cimport Reply
from smtpd.proto.rules cimport Rules

cimport cython


cdef class Transaction:
    cdef public bytes reverse_path
    cdef public object parameters
    cdef public list recipients
    cdef public BodyDecoder decoder
    cdef public Reply failure
    cdef public str failure_reason
    cdef public bint is_reported
    cdef public bint is_chunked
    cdef public bint is_last_chunk
    cdef public Py_ssize_t chunk_bytes
    cdef public Py_ssize_t size_limit
    cdef public tuple chunk_owner

    cpdef fail(self, Reply reply, str reason)


@cython.locals(transaction=Transaction)
cpdef Transaction begin_transaction(bytes reverse_path, parameters)


cpdef tuple check_content_limits(BodyDecoder decoder, Rules rules, Py_ssize_t size_limit=*)
cpdef tuple check_whole_content(BodyDecoder decoder, Rules rules)
