"""DPLO, model deployment: declared deployments, rollout, history, drift, rollback."""
