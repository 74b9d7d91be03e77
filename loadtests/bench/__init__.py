"""Side-by-side benchmarks: ratios against baselines of the same run, on loopback, bounded in count and time.

    python -m loadtests.bench            Duet beside stock BentoML, bare uvicorn and the raw ONNX Runtime loop
    python -m loadtests.bench.overhead   what Duet adds to a request, by stage
    python -m loadtests.bench.overload   what happens above capacity (open loop)
    python -m loadtests.bench.slow       slow connections by the thousand
    python -m loadtests.bench.soak       memory and latency over time
    python -m loadtests.bench.cache      what the cache is worth, by hit, batch size and cost
    python -m loadtests.bench.stampede   who computes what hundreds ask for at once
    python -m loadtests.bench.cache_memory  a million items against the memory tier's limit
    python -m loadtests.bench.faults     faults of Redis, each caused for real
    python -m loadtests.bench.peers      MLServer, LitServe and Ray Serve beside Duet
    python -m loadtests.bench.peers.tritonserver  Triton beside Duet

The server has one core, the load another. Tables are printed; JSON and a plot go to loadtests/results.
"""
