"""Decoding in processes that can be ended, for formats whose decoders cannot be trusted with time.

`processes` is the service's side, `worker` what such a process runs.
"""
