"""What several drivers are made of, and what other people's may borrow: homes, probes, quotas, reserved names."""
