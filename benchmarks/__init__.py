"""gpubp beside its peers: equal weights, batches, loss and optimizer; parity first, then interleaved timing.

    python -m benchmarks                              every workload, a table, JSON and a plot (about five minutes)
    python -m benchmarks sweep --over batch_size      rate over the batch size, or over networks

workloads.py says what is trained, peers.py and updates.py by whom; harness.py measures, machine.py describes where,
sampling.py prices the shuffling.
"""
