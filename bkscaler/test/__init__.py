"""Tests of bkscaler, run by trial."""
