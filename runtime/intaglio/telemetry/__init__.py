"""What a server says of each request: lines of its log, and spans of traces."""
