"""Pure values and rules of the gateway: routes, the table they make, health of replicas, retries, traffic."""
