from smtpd.load.messages cimport Calendar, Filler, Template
from smtpd.proto.client.transmission cimport Transmission

cimport cython


cdef class MailMaker:
    cdef object _spec
    cdef object _random
    cdef Filler _filler
    cdef Calendar _calendar
    cdef Template _head
    cdef Py_ssize_t _fixed_size
    cdef list _messages
    cdef dict _values
    cdef bytes _id_end
    cdef list _indexes
    cdef object _ascii_envelope
    cdef object _wide_envelope

    @cython.locals(content=bytes)
    cpdef Transmission make(self, long number)
    cpdef _make_envelope(self, long number)
    @cython.locals(size=Py_ssize_t, head=bytes, template=Template)
    cpdef bytes _make_content(self, long number, envelope)
    @cython.locals(values=dict, digits=bytes)
    cpdef dict _values_of(self, long number, envelope)
