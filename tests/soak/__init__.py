"""The soak: many clients of one daemon at random, deaths on every side, then an account of it all.

    python -m tests.soak --minutes 10 [--seed N]

    ledger    what every process counts, in memory that outlives it; when the remote was not there
    jobs      one call with what it must come to, by zlib and numpy
    client    a client process: what may be raised when, what it owes at its end
    kinds     what clients do: each kind another way to use a link
    held      what a process holds by the kernel's word
    runner    daemon, clients, kills; and that nothing is left after each round

A round is a crowd of clients that come, are killed and replaced, and go. After each of them the
daemon and the remote hold what they held before. Every choice comes from the seed, which a failure
prints with the client's log; when it comes about is up to the machine.
"""
