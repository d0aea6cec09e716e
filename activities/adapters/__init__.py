"""The only home of heavy libraries. Each function here runs in a child process of runtime/cpu_pool.py."""
