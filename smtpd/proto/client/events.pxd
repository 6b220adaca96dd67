from smtpd.proto.client.transmission cimport Transmission


cdef class ClientEvent:
    cdef public Py_ssize_t kind
    cdef public Transmission transmission
    cdef public object reason
