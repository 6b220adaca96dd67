"""What the file may leave out because the machine or the rest of the file tells it: names, host name,
postmaster."""

import os

from msgspec.structs import replace

from smtpd.config.grammar import check_text
from smtpd.settings import ListenerSettings, RouteSettings, Settings

# When the machine's own name is no host name ("my_box"): local mail still works, and `check` warns.
FALLBACK_HOSTNAME = "localhost"


def complete(settings: Settings) -> Settings:
    """Return the settings with everything filled in that has a default outside of the structs."""
    hostname = settings.hostname or machine_name() or FALLBACK_HOSTNAME
    postmaster = settings.policy.postmaster or f"postmaster@{hostname}"
    return replace(
        settings,
        hostname=hostname,
        policy=replace(settings.policy, postmaster=postmaster),
        listener=[replace(listener, name=listener_name(listener)) for listener in settings.listener],
        route=[replace(route, name=route_name(route, n)) for n, route in enumerate(settings.route)],
    )


def machine_name() -> str:
    """Return the machine's name if it can stand in a greeting, else ""; never asks a resolver."""
    try:
        return check_text("hostname", os.uname().nodename)
    except ValueError:
        return ""


def listener_name(listener: ListenerSettings) -> str:
    """Return the name of a listener, its address when it has none."""
    return listener.name or listener.address


def route_name(route: RouteSettings, number: int) -> str:
    """Return the name of the route with this index, its transport and number (from 1) when it has none."""
    return route.name or f"{route.transport}-{number + 1}"
