"""
A year of bad days on a virtual clock: the whole program in memory, among clients, a cluster and faults.

``python -m bkscaler.simulation`` runs it; ``docs/reliability.md`` says what is simulated and what is not.
"""
