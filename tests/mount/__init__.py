"""Tests of the mount's file-system logic, without a mount."""
