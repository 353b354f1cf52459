"""gpubp against its peers: equal weights, batches, loss and optimizer; parity first, then interleaved timing.

    python -m benchmarks                              every workload, tables, JSON and plots (under ten minutes)
    python -m benchmarks sweep --over batch_size      or networks, width, steps_per_call
    python -m benchmarks calls                        calls of one step, back to back
    python -m benchmarks whole                        the command line part by part, and whole trainings against JAX

workloads.py defines what is trained, contenders.py by whom (peers.py, updates.py, compiled_peers.py, jax_peers.py);
harness.py measures; machine.py and limits.py describe the machine; sweeps.py varies one thing; calls.py times single
steps; whole.py (phases.py), runs.py and digits.py train end to end; tables.py and plots.py are what comes out;
check.py, gpu.py and proofs.py are scripts/gpu_check.py.
"""
