"""Use cases and loops of the gateway, over ports: routes, endpoint leases, the table, forwarding, the
access log.
"""
