"""Rooms for people: one file a page. Each reads inputs, calls billing_core, and draws."""
