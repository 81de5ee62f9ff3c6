"""Tests of the doctor: deployments that are broken, and what it says of them."""
