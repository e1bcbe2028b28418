"""Thousands of bad moments, bad files and bad places, and what the command makes of them.

    make stress
    make stress STRESS="kills archives --count 20 --seed 7"

All of it is done with the network of `thin_network`, which has every kind of layer and
is exported to every format in seconds.
"""
