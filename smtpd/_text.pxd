# The C face of _text; _text.pyi is the documented one.
cpdef str join_number(long long value, int digits, str tail)
cpdef bint is_plain(str text) except -1
cpdef bint are_plain(bytes octets) except -1
cpdef bytes make_line(bytes head, str text)
cpdef bytes join_pieces(tuple pieces)
