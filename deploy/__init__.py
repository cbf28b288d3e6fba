"""How Penstock is run, built and checked: launchers, generators, compose, and the real servers under the tests."""
