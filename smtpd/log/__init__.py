"""Log lines: shapes (Postfix, logfmt, JSON), escaping of what peers sent, and destinations that never hold anybody up."""
