from smtpd.mail.queue_id cimport QueueIdMaker


cdef class DiscardWriter:
    cdef public str queue_id
    cdef public Py_ssize_t size_bytes
    cdef public object on_drain


cdef class DiscardSpool:
    cdef QueueIdMaker _ids

    cpdef str next_queue_id(self)
