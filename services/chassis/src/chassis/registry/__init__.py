"""Route providers: where serving replicas announce themselves and gateways learn of them."""
