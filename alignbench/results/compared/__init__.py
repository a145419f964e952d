"""From runs to a table, and what differs in it beyond noise."""
