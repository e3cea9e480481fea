"""What each step of the method sees on one backdoored encoder, recorded from a real scan and drawn for the docs.

`python -m benchmarks.steps` runs the scan, writes `benchmarks/results/steps.json` and draws `docs/steps/*.svg`;
`--draw` draws what is there.
"""
