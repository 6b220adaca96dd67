"""What all sections of the configuration share."""

import msgspec

DAY_S = 86400.0
TIB = 1 << 40


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every section."""
