"""Announces ``twistd bkscaler`` to Twisted's plugin system."""

from twisted.application.service import ServiceMaker

bkscaler = ServiceMaker(
    "bkscaler",
    "bkscaler.plugin",
    "Wake a buildkitd StatefulSet on demand, let it sleep when idle.",
    "bkscaler",
)
