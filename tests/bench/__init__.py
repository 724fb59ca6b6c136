"""The benchmark: every figure of SBE beside its floor or its peer, measured in the same run.

    python -m tests.bench [--quick] [--only NAME] [--rounds N] [--seconds S]

How a figure comes about, from the bottom up:

    model     the words: probe (measures something), row (compares two probes), settings, result
    procs     children: started with a name, placed on a core, bounded in time, ended by id
    ends      the far end of every two-process probe, a plain script
    floors    what the machine itself costs       (eventfd, cache line, memcpy, bare interpreter)
    peers     what people would use instead       (sockets, pipes, pyzmq, iceoryx2, numpy)
    ours      the same jobs through the SDK; crowd: among a thousand contexts
    streams   data that flows, alone and 64 at once; flows: the same by what people use instead
    core      the same jobs in C alone             (ring_bench.c, built by programs)
    anatomy   the parts of one sleeping call       (scripted: a link without a remote)
    curves    costs over sizes and calls in flight
    rows      the table of keys: which probe stands beside which
    worker    runs one probe in a process of its own
    runner    rounds, medians, ratios; build/bench.json
    report    the text table; plot: build/bench*.png; report_md: docs/performance.md

instructions counts instructions under callgrind instead of time; CI holds them to a record.
"""
