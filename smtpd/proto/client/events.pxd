from smtpd.proto.client.transmission cimport Transmission

cimport cython


cdef class ClientEvent:
    cdef public Py_ssize_t kind
    cdef public Transmission transmission
    cdef public object reason


@cython.locals(event=ClientEvent)
cpdef ClientEvent make_event(int kind, Transmission transmission)
