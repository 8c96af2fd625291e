"""`intaglio bench`: what NVIDIA's perf_analyzer measures of a server under named loads, its comparison, and
what else is measured of a build.

workload.py    the YAML file: kinds of requests, and the loads that send them
runs.py        one run of perf_analyzer for each value of a load, and the requests that it sends
tool.py        the perf_analyzer that runs here: its version, its command line
exports.py     what it writes of every request
kept.py        results on disk, each under the key of what it measured
serving.py     the server, and one picture of each kind before anything is measured
measure.py     the steps of a whole measurement
figures.py     percentiles, throughput, stages, growth
caches.py      which of the server's caches a load hits
machine.py     what it was measured on
report.py, plots.py, written.py   the results as JSON, as a page and as PNGs
comparison.py  two reports: faster, slower or no difference shown
intervals.py   confidence intervals of ratios, and the verdict that one allows
turns.py       two servers in turns, by the processor time of their processes
gate.py        whether the second is slower
roofline/      every engine beside what the device reaches
command.py     the command line
"""
