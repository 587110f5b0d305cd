"""Life after the gate: watch and shadow passes."""
