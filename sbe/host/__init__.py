"""What a program minds on any host: files that do not end, paths that are too long for a socket,
streams that nobody reads, folders that others can write; descriptors, and waiting while signals
are held.
"""
