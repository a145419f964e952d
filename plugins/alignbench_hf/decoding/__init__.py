"""Decoding in which the host does next to nothing: a cache of fixed size, and a step that is compiled or captured once."""
