"""The `local` cluster: replicas as supervised processes on this machine, which outlive the service's own
crash.
"""
