"""What happens on a compute node: slots, stage-in, payload, stage-out, CWL tools."""
