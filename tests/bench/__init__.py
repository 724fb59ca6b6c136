"""The benchmark: every figure of SBE beside its floor or its peer, measured in the same run.

    python -m tests.bench [--quick] [--only NAME] [--rounds N]

How a figure comes about, from the bottom up:

    model     the words: probe (measures something), row (compares two probes), settings, result
    procs     children: started with a name, placed on a core, bounded in time, ended by id
    ends      the far end of every two-process probe, a plain script
    floors    what the machine itself costs       (eventfd, cache line, memcpy, bare interpreter)
    peers     what people would use instead       (sockets, pipes, pyzmq, iceoryx2, numpy)
    ours      the same jobs through the SDK
    rows      the table of keys: which probe stands beside which
    worker    runs one probe in a process of its own
    runner    rounds, medians, ratios; build/bench.json
    report    the text table; plot: build/bench.png
"""
