"""Tests of calls as a whole."""
