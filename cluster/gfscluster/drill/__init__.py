"""Failover drills: clients keep a ledger of every call while the leader is hit; each call is checked afterwards."""
