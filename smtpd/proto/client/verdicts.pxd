from smtpd._wire cimport ReplyReader

cimport cython


cdef Py_ssize_t _TEXT_LENGTH

@cython.locals(lines=list, octets=bytes)
cpdef str text_of(ReplyReader reply)
cpdef bint is_too_many(ReplyReader reply) except -1
@cython.locals(code=int, dsn=str)
cpdef judge(ReplyReader reply, str relay, bint believes, bint passes_dsn=*)
