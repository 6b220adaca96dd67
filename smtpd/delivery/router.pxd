cdef class Route:
    cdef readonly int number
    cdef readonly object settings
    cdef readonly str name


cdef class Router:
    cdef public list routes
    cdef dict _patterns
    cdef public dict _cache
    cdef bint _has_senders
    cdef Route _bounce

    cpdef Route route_of(self, envelope, str domain)
    cpdef Route route_for(self, str domain, bytes reverse_path=*)


cdef Route _UNKNOWN
