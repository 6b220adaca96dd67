"""The configuration file: reading it, saying everything that is wrong with it, and writing it.

Start at `load.py`; a document goes through locate (lines), read (types and grammar) and crosscheck, in
this order.
"""

from smtpd.config.faults import ConfigError, Fault
from smtpd.config.load import DEFAULT_PATH, Examined, embedded_default, examine, load_settings, settings_file

__all__ = [
    "DEFAULT_PATH",
    "ConfigError",
    "Examined",
    "Fault",
    "embedded_default",
    "examine",
    "load_settings",
    "settings_file",
]
