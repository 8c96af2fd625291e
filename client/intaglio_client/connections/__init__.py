"""Connections to servers: how they are opened, which one is asked, and when a request is sent again."""
