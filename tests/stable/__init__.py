"""What is promised from 0.2.0 on (docs/adr/0021), recorded in the files beside this one.

    python -m tests.stable            what differs from the record
    python -m tests.stable --adopt    the record follows the code

`tests/unit/test_stable.py` holds the record against the code. Adopt what was meant, and commit it
with the change: whoever reads the diff sees what users will notice.
"""
