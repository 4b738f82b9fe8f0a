"""What tests/bench/network is made of: the namespaces, the networks compared, the measurements, the report."""
