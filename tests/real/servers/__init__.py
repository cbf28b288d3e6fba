"""Real servers for tests: each a context manager that starts one, waits until it serves, and leaves nothing.

`process` owns child processes; every other module is one system. A server that cannot start raises
ServerError, whose text ends with the server's own log.
"""
