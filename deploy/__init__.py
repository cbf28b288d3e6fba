"""What runs Penstock: the demo, code generation, tools for tests."""
