"""What may be wrong with a deployment, and how it is found out.

`causes` is the list of all that can be found, as data: `docs/troubleshooting.md` and
the tests are held to it. What is looked at from outside is in `app/tools/doctor`.
"""
