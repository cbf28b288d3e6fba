"""Use cases of MDS over ports: building packages, keeping them, serving them."""
