"""Triton on one machine: found, started on loopback, watched, stopped with nothing left behind.

installation   where `tritonserver` is and what it needs to start
workspace      what one server owns outside its processes: a folder and its shared memory
process        one run of Triton: arguments, readiness, signs of failure, stop
server         a deployment served, and kept served
"""
