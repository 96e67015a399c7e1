"""The simulator of agreement: whole networks on a virtual clock, one per seed (CONSENSUS 6.2).

`python -m tests.simulate --nodes N --seeds A:B [--kind KIND]` runs a campaign.
"""
