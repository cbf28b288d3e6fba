"""Deployments, history and events in a SQL database."""
