"""The faces of MDS: servicers, data-path handlers and REST routes. Each converts, calls, and converts
back.
"""
