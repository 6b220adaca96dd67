"""Reports to senders about mail that was taken and could not be, or has been, delivered (RFC 3461, 3464, 6522, 6533)."""
