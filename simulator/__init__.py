"""Third parties that run on this machine, as strict as the real ones, with faults on demand and a record of everything.

It imports nothing of Holdfast, so that it cannot share its mistakes.
"""
