"""From a path or a hub id to rows, each with its place: whatever is wrong with a file is one line."""
