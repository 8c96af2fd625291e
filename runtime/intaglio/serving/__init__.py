"""Triton on one machine: found, started on loopback, watched, stopped with nothing left behind.

installation      where `tritonserver` is and what it needs to start
workspace         what one server owns outside its processes: a folder and its shared memory
endpoints         where it listens
arguments         what it is started with
secret            the administrator's secret, and how it reaches Triton
launch, child     a process that ends with the thread that owns it; its output
log_file          a log with a bound
process           one run of Triton: started, watched, stopped
triton_log        what its output says
json_log          its output as lines of JSON
administration    its health, and loading models, over HTTP
stubs             the Python processes of its models
triton_server     a model repository served, and kept served
build_check       whether a build can be served
versions, change  the builds that a server has loaded, and going from one to another
server            a deployment served
control           how `intaglio reload` reaches a running server
memory            how much memory a deployment takes; memory_limits: whether that fits
health            the health check of container images
console           what `intaglio serve` prints
"""
