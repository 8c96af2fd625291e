"""A simulation of several servers that swap LoRAs: how long callers wait, by how requests are shared out."""
