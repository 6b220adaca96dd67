"""What is wrong although each key by itself is right: doubles, gaps and contradictions between keys.

Faults are what would fail or harm later (an open relay, two listeners on one address); warnings are what
is legal but seldom meant. A key that was bad by itself is left alone.
"""

import pwd
from collections.abc import Iterable

from smtpd.config.complete import FALLBACK_HOSTNAME, complete, listener_name, machine_name, route_name
from smtpd.config.faults import quote
from smtpd.config.policy_check import find_policy_faults
from smtpd.config.read import Finding, Path
from smtpd.errors import TlsFileError
from smtpd.net.hops import ANY_ADDRESSES, find_missing
from smtpd.net.tls.contexts import client_context
from smtpd.settings import ListenerSettings, RouteSettings, Settings
from smtpd.settings.endpoint import Endpoint, parse_endpoint

# RFC 2033 5: LMTP must not be spoken on the SMTP port.
_SMTP_PORT = 25
# RFC 5321 4.5.3.1.8 and 6.3
_RECIPIENTS_EXPECTED = 100


def cross_check(settings: Settings, bad: set[Path]) -> tuple[list[Finding], list[Finding]]:
    """Return faults and warnings."""
    check = _CrossCheck(settings, bad)
    check.run()
    return check.faults, check.warnings


class _CrossCheck:
    def __init__(self, settings: Settings, bad: set[Path]) -> None:
        self.settings = settings
        self.bad = bad
        self.faults: list[Finding] = []
        self.warnings: list[Finding] = []

    def run(self) -> None:
        self._host()
        self._listeners()
        self._relay()
        self._routes()
        self._limits()
        self._delivery()
        self._bounce()
        self.faults += find_policy_faults(self.settings, self.bad)

    def _fault(self, path: Path, text: str) -> None:
        self.faults.append(Finding(path, text))

    def _warn(self, path: Path, text: str) -> None:
        self.warnings.append(Finding(path, text))

    def _good(self, *paths: Path) -> bool:
        return self.bad.isdisjoint(paths)

    def _host(self) -> None:
        settings = self.settings
        if not settings.hostname and self._good(("hostname",)) and not machine_name():
            self._warn(("hostname",), f"the machine's own name is no host name: {quote(FALLBACK_HOSTNAME)} is used")
        if settings.user and not _is_user(settings.user):
            self._warn(("user",), f"{quote(settings.user)} is not a user of this machine")
        is_spool_good = self._good(("spool",), ("spool", "engine"), ("spool", "path"))
        if is_spool_good and settings.spool.engine == "sqlite" and not settings.spool.path.startswith("/"):
            self._warn(("spool", "path"), f"{quote(settings.spool.path)} depends on the directory where smtpd is started")

    def _listeners(self) -> None:
        listeners = self.settings.listener
        if not listeners and self._good(("listener",)):
            self._fault(("listener",), "at least one [[listener]] is needed")
        names: dict[str, int] = {}
        endpoints: dict[Endpoint, int] = {}
        for number, listener, endpoint in self._endpoints():
            path: Path = ("listener", number)
            if endpoint in endpoints and (endpoint.is_unix or endpoint.port):
                self._fault(path + ("address",), f"{quote(listener.address)} has a listener already")
            elif listener_name(listener) in names:
                key = "name" if listener.name else "address"
                self._fault(path + (key,), f"{quote(listener_name(listener))} is the name of another listener")
            endpoints.setdefault(endpoint, number)
            names.setdefault(listener_name(listener), number)
            if listener.protocol == "lmtp" and endpoint.port == _SMTP_PORT:
                self._fault(path + ("address",), "LMTP must not use port 25 (RFC 2033 5)")
        metrics = self.settings.metrics.address
        if metrics and self._good(("metrics", "address")):
            endpoint = parse_endpoint(metrics)
            if endpoint.port and endpoint in endpoints:
                self._fault(("metrics", "address"), f"{quote(metrics)} is the address of a listener")

    def _endpoints(self) -> Iterable[tuple[int, ListenerSettings, Endpoint]]:
        for number, listener in enumerate(self.settings.listener):
            if listener.address and self._good(("listener", number, "address")):
                yield number, listener, parse_endpoint(listener.address)

    def _relay(self) -> None:
        policy = self.settings.policy
        if policy.relay_domains is not None or not self._good(("policy",), ("policy", "relay_domains"), ("spool", "engine")):
            return
        for number, listener, endpoint in self._endpoints():
            if endpoint.is_local:
                continue
            words = f"{quote(listener.address)} is not loopback and policy.relay_domains is absent:"
            path: Path = ("listener", number, "address")
            if self.settings.spool.engine == "discard":
                self._warn(path, f"{words} mail for any domain is taken, and forgotten")
            else:
                self._fault(path, f"{words} an open relay for everybody who can reach it")

    def _routes(self) -> None:
        routes = self.settings.route
        names = {"bounce"}  # that of [bounce]
        for number, route in enumerate(routes):
            self._route(number, route)
            if route_name(route, number) in names:
                key = "name" if route.name else "transport"
                self._fault(("route", number, key), f"{quote(route_name(route, number))} is the name of another route")
            names.add(route_name(route, number))
        self._unreachable_routes()
        # a spool that forgets its mail never asks for a route; and bad domains would only lead to false words
        domains_good = all(self._good(("route", n, "domains")) for n in range(len(routes)))
        if self.settings.spool.engine == "sqlite" and domains_good and self._good(("route",)):
            self._unrouted_domains()

    def _route(self, number: int, route: RouteSettings) -> None:
        path: Path = ("route", number)
        if not route.domains and self._good(path + ("domains",)):
            self._fault(path + ("domains",), "at least one domain is needed")
        if not self._good(path + ("transport",), path + ("path",)):
            return
        if route.transport == "maildir" and not route.path:
            self._fault(path + ("path",), 'transport = "maildir" needs a path')
        elif route.transport != "maildir" and route.path:
            self._fault(path + ("path",), f"transport = {quote(route.transport)} takes no path")
        if not self._good(path + ("next_hop",)):
            return
        if route.transport in ("smtp", "lmtp") and not route.next_hop:
            self._fault(path + ("next_hop",), f"transport = {quote(route.transport)} needs a next_hop")
        elif route.transport not in ("smtp", "lmtp") and route.next_hop:
            self._fault(path + ("next_hop",), f"transport = {quote(route.transport)} takes no next_hop")
        if route.tls_ca and route.tls == "require" and self._good(path + ("tls_ca",)):
            try:
                client_context(True, route.tls_ca)
            except TlsFileError as error:
                self._fault(path + ("tls_ca",), str(error))
        for key in ("tls_name", "tls_ca"):
            if getattr(route, key) and route.tls != "require":
                self._warn(
                    path + (key,), f'has no effect without tls = "require" (tls = {quote(route.tls)} takes any certificate)'
                )
        if route.transport == "lmtp" and any(hop.startswith("mx:") for hop in route.next_hop):
            self._fault(path + ("next_hop",), "LMTP is not for hosts found by MX (RFC 2033 5)")
        self._no_loop(path + ("next_hop",), route.next_hop)
        self._can_resolve(path + ("next_hop",), route.next_hop)

    def _can_resolve(self, path: Path, next_hops: list[str]) -> None:
        problem = find_missing() if any(hop.startswith("mx:") for hop in next_hops) else ""
        if problem:
            self._fault(path, f'"mx:" can\'t be looked up: {problem}')

    def _no_loop(self, path: Path, next_hops: list[str]) -> None:
        """A next hop that is one of our own listeners would send mail round in circles."""
        own = {str(endpoint): listener for _, listener, endpoint in self._endpoints()}
        for _, listener, endpoint in self._endpoints():
            if not endpoint.is_unix:
                names = {complete(self.settings).hostname, "localhost"} if endpoint.host in ANY_ADDRESSES else set()
                names |= {"localhost"} if endpoint.is_local else set()
                own.update({f"{name}:{endpoint.port}": listener for name in names})
        for hop in next_hops:
            if hop in own:
                self._fault(
                    path, f"{quote(hop)} is the listener {quote(listener_name(own[hop]))} of this gateway: mail would loop"
                )

    def _bounce(self) -> None:
        bounce = self.settings.bounce
        if bounce.enabled and not bounce.next_hop and self._good(("bounce",), ("bounce", "next_hop")):
            self._fault(("bounce", "next_hop"), "enabled = true needs a next_hop for bounces")
        if self._good(("bounce",), ("bounce", "next_hop")):
            self._no_loop(("bounce", "next_hop"), bounce.next_hop)
            self._can_resolve(("bounce", "next_hop"), bounce.next_hop)

    def _unreachable_routes(self) -> None:
        earlier: dict[str, int] = {}
        for number, route in enumerate(self.settings.route):
            for domain in route.domains:
                by = earlier.get(domain, earlier.get("*"))
                if by is not None and by != number:
                    name = route_name(self.settings.route[by], by)
                    self._warn(("route", number, "domains"), f"{quote(domain)} is never reached: route {quote(name)} takes it")
            if not route.senders:
                for domain in route.domains:
                    earlier.setdefault(domain, number)

    def _unrouted_domains(self) -> None:
        refused = "is refused with 550 5.4.4, no route"
        if not self.settings.route:
            self._warn(("route",), f"there is no [[route]]: all mail {refused}")
            return
        routed = {domain for route in self.settings.route if not route.senders for domain in route.domains}
        if "*" in routed:
            return
        relay = self.settings.policy.relay_domains
        if relay is None:
            self._warn(("route",), f'no route takes "*": mail for other domains {refused}')
        for number, domain in enumerate(relay or []):
            if not _is_routed(domain, routed):
                self._warn(("policy", "relay_domains", number), f"mail for {quote(domain)} {refused}")
        if self._good(("hostname",), ("policy", "postmaster")):
            postmaster = complete(self.settings).policy.postmaster
            if not _is_routed(postmaster.rpartition("@")[2], routed):
                self._warn(("policy", "postmaster"), f"no route for {quote(postmaster)}: its mail is taken and stays queued")

    def _limits(self) -> None:
        limits = self.settings.limits
        if 0 < limits.hard_errors < limits.soft_errors and self._good(("limits", "hard_errors"), ("limits", "soft_errors")):
            self._warn(
                ("limits", "soft_errors"),
                f"never reached: the connection is closed at hard_errors = {limits.hard_errors}",
            )
        if 0 < limits.recipients < _RECIPIENTS_EXPECTED:
            self._warn(("limits", "recipients"), f"clients may expect {_RECIPIENTS_EXPECTED} at least (RFC 5321 4.5.3.1.8)")
        is_size_good = self._good(("limits", "message_size"), ("limits", "header_size"))
        if is_size_good and 0 < limits.message_size < limits.header_size:
            self._warn(("limits", "header_size"), "never reached: it is larger than message_size")

    def _delivery(self) -> None:
        delivery = self.settings.delivery
        if not self._good(("delivery",), ("delivery", "retry"), ("delivery", "lifetime")):
            return
        if not delivery.retry:
            self._fault(("delivery", "retry"), "at least one waiting time is needed")
        elif delivery.lifetime < delivery.retry[0]:
            self._warn(("delivery", "lifetime"), "shorter than the first waiting time: no mail is tried twice")


def _is_routed(domain: str, routed: set[str]) -> bool:
    """Whether every address of a relay domain (".example.org": of all domains below it) has a route."""
    if domain in routed:
        return True
    rest = domain.removeprefix(".")
    while "." in rest:
        rest = rest.partition(".")[2]
        if "." + rest in routed:
            return True
    return False


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
