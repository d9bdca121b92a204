"""
Sandbox: an embedded Kubernetes in one process, for newcomers and for tests.

It may import the foundations only; the demo and the tests import it, the product never does. Where to look:

========================  ================================================================================
what clients ask          ``api`` reads it with ``calls``, asks ``authorization``, gives it to ``handlers``
what they may write       ``verbs``, ``scale``, ``deletion``, with ``patches``, ``fields`` and ``validation``
what they are shown       ``lists``, ``watches``, ``tables``, ``views``; ``failures`` are the refusals
what there is             ``kinds`` is the table of resources, ``discovery`` and ``openapi`` tell of it
where it is kept          ``state``: objects, versions, histories, subscribers
what goes on by itself    ``controller`` does what ``plan`` decides; ``kubelet`` gives each pod a ``podlife``
what a pod runs           ``pods`` is the interface, ``processes`` the real thing, ``backends`` the choice
how it is put together    ``cluster`` on any clock, without a network; ``service`` and ``__main__`` with one
========================  ================================================================================
"""
